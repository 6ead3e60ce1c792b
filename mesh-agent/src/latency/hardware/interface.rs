//! The interfaces of a network namespace, with what they can and what they are set to.

use std::{fmt, io, path::PathBuf};

use nix::net::if_::{if_indextoname, if_nameindex};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::{Abilities, Setting, ioctls};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number, unique in its network namespace.
    pub index: u32,
    /// What it can.
    #[serde(flatten)]
    pub abilities: Abilities,
    /// Which hardware stamps it gives now; `None` where there are none or the driver does not tell.
    #[serde(rename = "hardwareSetting", skip_serializing_if = "Option::is_none")]
    pub setting: Option<Setting>,
}

impl Interface {
    /// Every interface of the network namespace that the calling thread is in, by number.
    pub fn all() -> io::Result<Vec<Self>> {
        let socket = any_socket()?;
        let mut interfaces: Vec<Self> = if_nameindex()?
            .iter()
            .map(|known| {
                let name = known.name().to_string_lossy().into_owned();
                Self::ask(&socket, known.index(), name)
            })
            .collect();
        interfaces.sort_by_key(|interface| interface.index);
        Ok(interfaces)
    }

    /// The one of this number, if there is one.
    pub fn of(index: u32) -> io::Result<Option<Self>> {
        let Some(name) = name_of(index) else {
            return Ok(None);
        };
        Ok(Some(Self::ask(&any_socket()?, index, name)))
    }

    fn ask(socket: &Socket, index: u32, name: String) -> Self {
        // Without an answer it has nothing that we could use: so do tunnels of old kernels say it.
        let info = ioctls::timestamp_info(socket, &name).ok();
        let setting = ioctls::setting(socket, &name).ok();
        Self {
            abilities: info.map(Abilities::from).unwrap_or_default(),
            index,
            name,
            setting,
        }
    }

    /// The device file of its clock.
    pub fn clock_path(&self) -> Option<String> {
        self.abilities
            .clock
            .map(|number| format!("/dev/ptp{number}"))
    }

    /// Whether its card stamps packets now.
    pub fn is_on(&self) -> bool {
        self.setting.is_some_and(Setting::is_on)
    }

    /// What [`Display`](fmt::Display) says after the name.
    pub fn description(&self) -> String {
        let mut text = self.abilities.to_string();
        if self.abilities.has_hardware() {
            text.push_str(match self.setting {
                None => ", which the driver does not tell the state of",
                Some(setting) => match (setting.stamps_sent(), setting.stamps_received()) {
                    (true, true) => ", on",
                    (true, false) => ", on for transmit",
                    (false, true) => ", on for receive",
                    (false, false) => ", off",
                },
            });
        }
        if let Some(clock) = self.clock_path() {
            text.push_str("; clock ");
            text.push_str(&clock);
        }
        text
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.description())
    }
}

/// The name of the interface of this number, if there is one.
pub(super) fn name_of(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?;
    // The library takes having found none for an empty name.
    let name = name.to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

/// The device behind the interface of this name, as sysfs has it: a card has the same one whatever its name and number
/// are. `None` if there is none, or no sysfs.
pub(super) fn device_of(name: &str) -> Option<PathBuf> {
    std::fs::canonicalize(format!("/sys/class/net/{name}/device")).ok()
}

/// A socket to ask about interfaces of its network namespace with.
pub(super) fn any_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None);
    // A machine without IPv4.
    socket.or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_listed_with_software_stamps_and_no_clock() {
        let interfaces = Interface::all().unwrap();
        let loopback = interfaces.iter().find(|known| known.name == "lo").unwrap();
        assert!(loopback.abilities.software.transmit && loopback.abilities.software.receive);
        assert!(!loopback.abilities.has_hardware() && loopback.setting.is_none());
        assert_eq!(
            loopback.to_string(),
            "lo: software transmit and receive; no hardware"
        );
        assert_eq!(
            Interface::of(loopback.index).unwrap().as_ref(),
            Some(loopback)
        );
        assert_eq!(Interface::of(u32::MAX).unwrap(), None);
    }
}
