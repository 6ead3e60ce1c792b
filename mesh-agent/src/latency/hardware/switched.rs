//! Switching cards' stamps on, and back.

use std::{io, path::Path};

use nix::net::if_::if_indextoname;

use super::{
    Interface,
    interface::any_socket,
    ioctls,
    plan::{Plan, plan},
    record::{Entry, Record},
};
use crate::config::HardwareStamps;

/// Where the record is: the directory that only root can write to, with the agent's locks.
const DIRECTORY: &str = "/run/mesh-agent";

/// The cards that are switched on; dropping it restores what they were set to before.
#[derive(Debug, Default)]
pub struct Switched {
    record: Option<Record>,
}

impl Switched {
    /// Switches on what the configuration wants. A card that refuses, and everything else that goes wrong,
    /// is logged: the agent can do without.
    pub fn on(wanted: HardwareStamps) -> Self {
        Self::try_on(wanted, Path::new(DIRECTORY)).unwrap_or_else(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                tracing::info!("hardware timestamps: another agent looks after the cards");
            } else {
                tracing::warn!("hardware timestamps: {error}; the cards are used as they are");
            }
            Self::default()
        })
    }

    fn try_on(wanted: HardwareStamps, directory: &Path) -> io::Result<Self> {
        let path = Record::path(directory)?;
        if wanted == HardwareStamps::Off {
            // What an agent that crashed has set is to go nevertheless.
            drop(Self {
                record: Record::open(&path, false)?,
            });
            return Ok(Self::default());
        }
        let interfaces = Interface::all()?;
        let cannot = |interface: &&Interface| plan(interface, None) == Plan::CannotStamp;
        if wanted == HardwareStamps::On {
            for interface in interfaces.iter().filter(cannot) {
                warn_of(interface);
            }
        }
        let create = !interfaces.iter().all(|interface| cannot(&interface));
        let Some(record) = Record::open(&path, create)? else {
            return Ok(Self::default());
        };
        let mut switched = Self {
            record: Some(record),
        };
        switched.forget_gone(&interfaces)?;
        for interface in &interfaces {
            let done = switched.take(interface);
            if let Err(error) = done {
                let text = format!("{}: hardware timestamps stay off: {error}", interface.name);
                if wanted == HardwareStamps::On {
                    tracing::warn!("{text}");
                } else {
                    tracing::debug!("{text}");
                }
            }
        }
        Ok(switched)
    }

    /// Forgets interfaces that are gone, or whose number another one has, or that somebody else has set.
    fn forget_gone(&mut self, interfaces: &[Interface]) -> io::Result<()> {
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        let is_there = |entry: &Entry| {
            let interface = interfaces.iter().find(|known| known.index == entry.index);
            let setting = interface.and_then(|interface| interface.setting);
            setting.is_some_and(|now| entry.is_ours(now))
        };
        let gone: Vec<u32> = record
            .entries()
            .iter()
            .filter(|entry| !is_there(entry))
            .map(|entry| entry.index)
            .collect();
        gone.into_iter().try_for_each(|index| record.remove(index))
    }

    fn take(&mut self, interface: &Interface) -> io::Result<()> {
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        let mut entries = record.entries().iter();
        let earlier = entries.find(|entry| entry.index == interface.index);
        match plan(interface, earlier) {
            Plan::CannotStamp => {}
            Plan::Foreign => tracing::debug!("{interface}: used as it is"),
            Plan::Inherit => tracing::info!(
                "{}: hardware timestamps are on since an earlier run",
                interface.name
            ),
            Plan::SwitchOn(asked) => {
                let mut entry = Entry {
                    index: interface.index,
                    former: interface.setting.unwrap_or_default(),
                    asked,
                    made: None,
                };
                // First: a crash right after the change must not lose it.
                record.put(entry.clone())?;
                match ioctls::set(&any_socket()?, &interface.name, asked) {
                    Ok(made) => {
                        entry.made = Some(made);
                        record.put(entry)?;
                        tracing::info!(
                            "{}: hardware timestamps switched on until the agent ends",
                            interface.name
                        );
                    }
                    Err(error) => {
                        record.remove(interface.index)?;
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn restore(record: Record) -> io::Result<()> {
        let socket = any_socket()?;
        for entry in record.entries() {
            if let Err(error) = restore(&socket, entry) {
                tracing::warn!(
                    "interface {}: its former hardware timestamp setting {:?} is not restored: {error}",
                    entry.index,
                    entry.former
                );
            }
        }
        record.delete()
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        if let Some(record) = self.record.take()
            && let Err(error) = Self::restore(record)
        {
            tracing::warn!("hardware timestamps: {error}; cards may be left switched on");
        }
    }
}

/// Sets a card back, unless it is gone or somebody else has set it since.
fn restore(socket: &socket2::Socket, entry: &Entry) -> io::Result<()> {
    let Ok(name) = if_indextoname(entry.index) else {
        return Ok(());
    };
    let name = name.to_string_lossy();
    let Ok(now) = ioctls::setting(socket, &name) else {
        return Ok(());
    };
    if !entry.is_ours(now) {
        tracing::debug!("{name}: somebody else has set its hardware timestamps since");
        return Ok(());
    }
    ioctls::set(socket, &name, entry.former)?;
    tracing::info!("{name}: hardware timestamps are set as they were before");
    Ok(())
}

/// The configuration wants stamps of every card.
fn warn_of(interface: &Interface) {
    // What has no hardware behind it is no card.
    let device = format!("/sys/class/net/{}/device", interface.name);
    if Path::new(&device).exists() {
        tracing::warn!(
            "latency.hardware is `on`, but {}: {}",
            interface.name,
            interface.description()
        );
    }
}
