//! The clocks of the cards whose stamps are on, and keeping what is known of them fresh.

use std::{
    fs::File,
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use super::{ClockRelation, Converted, Interface, ioctls};
use crate::latency::HardwareNanos;

/// How often the clocks are read, well below [`STALE`](super::STALE).
const REFRESH: Duration = Duration::from_secs(1);

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

/// The clocks of the cards whose stamps are on.
#[derive(Debug, Default)]
pub struct Clocks {
    clocks: Vec<PhcClock>,
    /// Number of an interface of the agent's own network namespace, and which of the clocks is its.
    by_interface: Vec<(u32, usize)>,
}

impl Clocks {
    /// Opens the clocks of those of the `interfaces` whose stamps are on. One that cannot be had is
    /// logged, and its interface's stamps cannot be converted.
    pub fn of(interfaces: &[Interface]) -> Self {
        let mut clocks = Self::default();
        for interface in interfaces.iter().filter(|interface| interface.is_on()) {
            let Some(path) = interface.clock_path() else {
                continue;
            };
            // A card with several ports, and the VLANs on it, share a clock.
            let known = clocks.clocks.iter().position(|clock| clock.path == path);
            let index = known.or_else(|| match PhcClock::open(&path) {
                Ok(clock) => {
                    clocks.clocks.push(clock);
                    Some(clocks.clocks.len() - 1)
                }
                Err(error) => {
                    tracing::warn!(
                        "{path}, the clock of {}, cannot be read: {error}; its hardware \
                         timestamps are not used",
                        interface.name
                    );
                    None
                }
            });
            clocks
                .by_interface
                .extend(index.map(|index| (interface.index, index)));
        }
        clocks
    }

    /// A stamp by the system's clock. `interface` is a number in the agent's own network namespace; where it
    /// is not known, what all clocks agree on that the stamp can be of: cards that follow one master do, and
    /// of others all but one are too far from it.
    pub fn to_system(&self, stamp: HardwareNanos, interface: Option<u32>) -> Option<Converted> {
        match interface {
            Some(interface) => self.of_interface(interface)?.to_system(stamp),
            None => Converted::agreed(
                self.clocks
                    .iter()
                    .filter_map(|clock| clock.to_system(stamp)),
            ),
        }
    }

    /// The clock that stamps of this interface go by.
    pub fn of_interface(&self, interface: u32) -> Option<&PhcClock> {
        let known = self.by_interface.iter();
        let (_, index) = known.copied().find(|(known, _)| *known == interface)?;
        self.clocks.get(index)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.clocks.is_empty()
    }

    /// Reads them again, some microseconds each.
    pub fn refresh(&self) {
        for clock in &self.clocks {
            if let Err(error) = clock.refresh() {
                tracing::debug!("{}: {error}", clock.path);
            }
        }
    }
}

/// Reads the clocks for as long as it runs; ends at once where there are none.
pub async fn keep_fresh(clocks: Arc<Clocks>) {
    if clocks.is_empty() {
        return;
    }
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        clocks.refresh();
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
    }
}
