//! Timestamps of network cards: which there are, switching them on and back, and what a card's clock
//! means by the system's.
//!
//! Everything here is about the interfaces of the network namespace that the agent runs in, where a
//! node's cards are.

mod abilities;
mod clock;
mod interface;
mod ioctls;
mod plan;
mod record;
mod relation;
mod setting;
mod switched;

use std::sync::Arc;

use crate::config::HardwareStamps;

pub use abilities::{Abilities, Directions};
pub use clock::{Clocks, PhcClock, keep_fresh};
pub use interface::Interface;
pub use relation::{ClockRelation, Converted, Reading, STALE};
pub use setting::Setting;
pub use switched::Switched;

/// The cards' stamps for as long as the agent runs; dropping it restores what the cards were set to.
#[derive(Debug)]
pub struct HardwareTimestamps {
    _switched: Switched,
    clocks: Arc<Clocks>,
}

impl HardwareTimestamps {
    /// Switches on what the configuration wants, and opens the clocks of the cards whose stamps are on,
    /// by us or by others.
    pub fn start(wanted: HardwareStamps) -> Self {
        let switched = Switched::on(wanted);
        let clocks = match wanted {
            HardwareStamps::Off => Clocks::default(),
            HardwareStamps::Auto | HardwareStamps::On => {
                let interfaces = Interface::all().unwrap_or_default();
                Clocks::of(&interfaces)
            }
        };
        Self {
            _switched: switched,
            clocks: Arc::new(clocks),
        }
    }

    /// The cards' clocks; [`keep_fresh`] is to run as long as they are used.
    pub fn clocks(&self) -> Arc<Clocks> {
        Arc::clone(&self.clocks)
    }
}
