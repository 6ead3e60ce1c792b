//! Switching cards' stamps on, and back.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use super::{
    Interface,
    interface::{any_socket, device_of, name_of},
    ioctls,
    links::Departure,
    plan::{Plan, plan},
    record::{Entry, Record},
};
use crate::config::HardwareStamps;

/// Where the record is: the directory that only root can write to, with the agent's locks.
const DIRECTORY: &str = "/run/mesh-agent";

/// The cards that are switched on; dropping it restores what they were set to before.
#[derive(Debug, Default)]
pub struct Switched {
    wanted: HardwareStamps,
    /// Where the record is to be; `None` when no card is to be touched.
    path: Option<PathBuf>,
    record: Option<Record>,
    /// Numbers of interfaces that nothing is to be done with any more: what another tool sets now stays.
    settled: BTreeSet<u32>,
    /// Numbers of those of which it was said that they cannot.
    told: BTreeSet<u32>,
}

impl Switched {
    /// Switches on what the configuration wants. A card that refuses, and everything else that goes wrong,
    /// is logged: the agent can do without.
    pub fn on(wanted: HardwareStamps) -> Self {
        let mut switched = Self::default();
        switched.wanted = wanted;
        if let Err(error) = switched.start(Path::new(DIRECTORY)) {
            warn_of_record(&error);
        }
        switched
    }

    fn start(&mut self, directory: &Path) -> io::Result<()> {
        let path = Record::path(directory)?;
        if self.wanted == HardwareStamps::Off {
            // What an agent that crashed has set is to go nevertheless.
            self.record = Record::open(&path, false)?;
            self.restore();
            return Ok(());
        }
        self.path = Some(path.clone());
        let interfaces = Interface::all()?;
        let can = |interface: &Interface| plan(interface, None) != Plan::CannotStamp;
        self.record = Record::open(&path, interfaces.iter().any(can))?;
        self.look_at_all(&interfaces)
    }

    /// Does with every interface what is to be done, and forgets those that are gone.
    pub(super) fn look_at_all(&mut self, interfaces: &[Interface]) -> io::Result<()> {
        let is_there = |index: &u32| interfaces.iter().any(|known| known.index == *index);
        self.settled.retain(is_there);
        self.told.retain(is_there);
        self.forget_gone(interfaces)?;
        for interface in interfaces {
            self.look_at(interface);
        }
        Ok(())
    }

    /// Does with an interface what is to be done, if it is not done: it was there at the start, has come since, or
    /// has changed.
    pub(super) fn look_at(&mut self, interface: &Interface) {
        if self.path.is_none() || self.settled.contains(&interface.index) {
            return;
        }
        if plan(interface, None) == Plan::CannotStamp {
            if self.wanted == HardwareStamps::On && self.told.insert(interface.index) {
                warn_of(interface);
            }
            return;
        }
        if let Err(error) = self.take(interface) {
            let is_news = self.told.insert(interface.index);
            let text = format!("{}: hardware timestamps stay off: {error}", interface.name);
            if self.wanted == HardwareStamps::On && is_news {
                tracing::warn!("{text}");
            } else {
                tracing::debug!("{text}");
            }
        }
    }

    /// Forgets an interface that went. What it was set to before stays written down if it may come back as it is.
    pub(super) fn forget(&mut self, index: u32, departure: Departure) {
        self.settled.remove(&index);
        self.told.remove(&index);
        let is_written = |record: &&mut Record| {
            let mut entries = record.entries().iter();
            entries.any(|entry| entry.index == index)
        };
        if departure == Departure::Removed
            && let Some(record) = self.record.as_mut().filter(is_written)
            && let Err(error) = record.remove(index)
        {
            tracing::warn!("interface {index}, which is gone, stays on record: {error}");
        }
    }

    /// Strikes from the record interfaces that are gone, or whose number another one has, or that somebody else
    /// has set.
    fn forget_gone(&mut self, interfaces: &[Interface]) -> io::Result<()> {
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        let is_there = |entry: &Entry| {
            let mut known = interfaces.iter().filter(|known| known.index == entry.index);
            let interface = known.find(|known| entry.is_of(&known.name));
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
        if self.record.is_none()
            && let Some(path) = &self.path
        {
            self.record = Record::open(path, true)?;
        }
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        let mut entries = record.entries().iter();
        let is_its =
            |entry: &&Entry| entry.index == interface.index && entry.is_of(&interface.name);
        let earlier = entries.find(is_its);
        match plan(interface, earlier) {
            Plan::CannotStamp => return Ok(()),
            Plan::Foreign => tracing::debug!("{interface}: used as it is"),
            Plan::Inherit => tracing::info!(
                "{}: hardware timestamps are on since an earlier run",
                interface.name
            ),
            Plan::SwitchOn(asked) => {
                let mut entry = Entry {
                    index: interface.index,
                    device: device_of(&interface.name),
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
        self.settled.insert(interface.index);
        Ok(())
    }

    /// Sets all cards back, for good.
    pub(super) fn restore(&mut self) {
        self.path = None;
        if let Some(record) = self.record.take()
            && let Err(error) = restore_all(record)
        {
            tracing::warn!("hardware timestamps: {error}; cards may be left switched on");
        }
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        self.restore();
    }
}

fn restore_all(record: Record) -> io::Result<()> {
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

/// Sets a card back, unless it is gone or somebody else has set it since.
fn restore(socket: &socket2::Socket, entry: &Entry) -> io::Result<()> {
    let Some(name) = name_of(entry.index) else {
        return Ok(());
    };
    if !entry.is_of(&name) {
        tracing::info!(
            "{name} has the number of a card that is gone: that one's hardware timestamps stay as they are"
        );
        return Ok(());
    }
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

/// Why no card is looked after.
pub(super) fn warn_of_record(error: &io::Error) {
    if error.kind() == io::ErrorKind::WouldBlock {
        tracing::info!("hardware timestamps: another agent looks after the cards");
    } else {
        tracing::warn!("hardware timestamps: {error}; the cards are used as they are");
    }
}
