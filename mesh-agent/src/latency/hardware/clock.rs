//! The clocks of the cards whose stamps are on, and keeping what is known of them fresh.

use std::{
    fs::File,
    io,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{ClockRelation, Converted, Interface, ioctls};
use crate::latency::HardwareNanos;

/// A card's clock, `/dev/ptpN`.
#[derive(Debug)]
pub struct PhcClock {
    path: String,
    device: File,
    relation: RwLock<ClockRelation>,
}

impl PhcClock {
    /// Opens the clock and reads it for the first time.
    pub fn open(path: &str) -> io::Result<Self> {
        let clock = Self {
            path: path.to_owned(),
            device: File::open(path)?,
            relation: RwLock::default(),
        };
        clock.refresh()?;
        Ok(clock)
    }

    /// Reads it again. What was known before goes if it cannot be read.
    pub fn refresh(&self) -> io::Result<()> {
        let reading = ioctls::read_clock(&self.device);
        let mut relation = self
            .relation
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match reading {
            Ok(reading) => relation.observe(reading),
            Err(_) => relation.forget(),
        }
        reading.map(drop)
    }

    /// A stamp of this clock by the system's clock; `None` while their relation is not known.
    pub fn to_system(&self, stamp: HardwareNanos) -> Option<Converted> {
        self.relation
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .to_system(stamp)
    }

    /// Its device file.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The clocks of the cards whose stamps are on. Cards come and go.
#[derive(Debug, Default)]
pub struct Clocks {
    /// Whether there is none: asked for every connection.
    are_there: AtomicBool,
    /// The clock of each interface, by its number in the agent's own network namespace. A card with several ports,
    /// and the VLANs on it, share one.
    known: RwLock<Vec<(u32, Arc<PhcClock>)>>,
}

impl Clocks {
    /// Opens the clocks of those of the `interfaces` whose stamps are on.
    pub fn of(interfaces: &[Interface]) -> Self {
        let clocks = Self::default();
        for interface in interfaces {
            clocks.add(interface);
        }
        clocks
    }

    /// Opens the clock of an interface if its stamps are on, unless it is known. One that cannot be had is logged,
    /// and the interface's stamps cannot be converted.
    pub fn add(&self, interface: &Interface) {
        let Some(path) = interface.clock_path().filter(|_| interface.is_on()) else {
            return;
        };
        let earlier = self.of_interface(interface.index);
        if earlier.is_some_and(|clock| clock.path == path && clock.refresh().is_ok()) {
            return;
        }
        self.forget(interface.index);
        match self
            .shared(&path)
            .map_or_else(|| PhcClock::open(&path).map(Arc::new), Ok)
        {
            Ok(clock) => {
                self.write().push((interface.index, clock));
                self.are_there.store(true, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(
                "{path}, the clock of {}, cannot be read: {error}; its hardware timestamps are not used",
                interface.name
            ),
        }
    }

    /// The clock of another interface that has this path and still runs: that of a card that is gone does not, and
    /// the next one has its path.
    fn shared(&self, path: &str) -> Option<Arc<PhcClock>> {
        let known = self.read();
        let mut clocks = known.iter().map(|(_, clock)| clock);
        clocks
            .find(|clock| clock.path == path && clock.refresh().is_ok())
            .cloned()
    }

    /// Forgets the clock of an interface that is gone.
    pub fn forget(&self, interface: u32) {
        self.forget_if(|index| *index == interface);
    }

    /// Forgets the clocks of those interfaces.
    pub(super) fn forget_if(&self, is_gone: impl Fn(&u32) -> bool) {
        let mut known = self.write();
        known.retain(|(index, _)| !is_gone(index));
        self.are_there.store(!known.is_empty(), Ordering::Relaxed);
    }

    /// A stamp by the system's clock. `interface` is a number in the agent's own network namespace; where it
    /// is not known, what all clocks agree on that the stamp can be of: cards that follow one master do, and
    /// of others all but one are too far from it.
    pub fn to_system(&self, stamp: HardwareNanos, interface: Option<u32>) -> Option<Converted> {
        if let Some(interface) = interface {
            return self.of_interface(interface)?.to_system(stamp);
        }
        // One that is shared agrees with itself.
        let known = self.read();
        Converted::agreed(known.iter().filter_map(|(_, clock)| clock.to_system(stamp)))
    }

    /// The clock that stamps of this interface go by.
    pub fn of_interface(&self, interface: u32) -> Option<Arc<PhcClock>> {
        let known = self.read();
        let mut known = known.iter();
        let (_, clock) = known.find(|(known, _)| *known == interface)?;
        Some(Arc::clone(clock))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        !self.are_there.load(Ordering::Relaxed)
    }

    /// Reads them again, some microseconds each.
    pub fn refresh(&self) {
        let known = self.read();
        for (number, (_, clock)) in known.iter().enumerate() {
            let earlier = &known[..number];
            if earlier.iter().any(|(_, other)| Arc::ptr_eq(other, clock)) {
                continue;
            }
            if let Err(error) = clock.refresh() {
                tracing::debug!("{}: {error}", clock.path);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<(u32, Arc<PhcClock>)>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<(u32, Arc<PhcClock>)>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_interface_without_stamps_has_a_clock() {
        let clocks = Clocks::of(&Interface::all().unwrap());
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        assert!(clocks.of_interface(loopback).is_none());
        let stamp = HardwareNanos(1);
        assert_eq!(clocks.to_system(stamp, Some(loopback)), None);
        assert_eq!(clocks.to_system(stamp, None), None);
        clocks.forget(loopback);
        assert!(clocks.is_empty());
    }
}
