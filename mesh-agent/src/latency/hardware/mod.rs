//! Timestamps of network cards: which there are, switching them on and back, and what a card's clock
//! means by the system's.
//!
//! Everything here is about the interfaces of the network namespace that the agent runs in, where a
//! node's cards are.

mod abilities;
mod clock;
mod interface;
mod ioctls;
mod links;
mod plan;
mod record;
mod relation;
mod setting;
mod switched;
mod watch;

use std::sync::{Arc, Mutex};

use crate::config::HardwareStamps;
use links::Links;
use watch::Cards;

pub use abilities::{Abilities, Directions};
pub use clock::{Clocks, PhcClock};
pub use interface::Interface;
pub use relation::{ClockRelation, Converted, Reading, STALE};
pub use setting::Setting;
pub use switched::Switched;

/// The cards' stamps for as long as the agent runs; dropping it restores what the cards were set to.
#[derive(Debug)]
pub struct HardwareTimestamps {
    cards: Cards,
    /// Tells of those that come; taken by who attends to them.
    links: Option<Links>,
    is_wanted: bool,
}

impl HardwareTimestamps {
    /// Switches on what the configuration wants, and opens the clocks of the cards whose stamps are on,
    /// by us or by others.
    pub fn start(wanted: HardwareStamps) -> Self {
        let is_wanted = wanted != HardwareStamps::Off;
        // Before the cards are looked at: none that comes meanwhile is missed.
        let links = is_wanted.then(|| Links::open().map_err(|error| watch::warn(&error)));
        let switched = Switched::on(wanted);
        let interfaces = is_wanted.then(|| Interface::all().unwrap_or_default());
        Self {
            cards: Cards {
                switched: Arc::new(Mutex::new(switched)),
                clocks: Arc::new(Clocks::of(&interfaces.unwrap_or_default())),
            },
            links: links.and_then(Result::ok),
            is_wanted,
        }
    }

    /// The cards' clocks. They say something only while [`attend`](Self::attend) runs.
    pub fn clocks(&self) -> Arc<Clocks> {
        Arc::clone(&self.cards.clocks)
    }

    /// Keeps the clocks fresh, and does with cards that come later what was done at the start, for as long as it
    /// runs; to be called once.
    pub fn attend(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let (cards, links, is_wanted) = (self.cards.clone(), self.links.take(), self.is_wanted);
        async move {
            if is_wanted {
                watch::attend(cards, links).await;
            }
        }
    }
}

impl Drop for HardwareTimestamps {
    fn drop(&mut self) {
        // A card that is being looked at, on another thread, first.
        self.cards.switched().restore();
    }
}
