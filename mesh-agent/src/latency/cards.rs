//! The cards of this node whose timestamps are used, if there are any: one set for the process, as for the node.

use std::sync::{Arc, OnceLock};

use super::{
    HardwareNanos,
    control_messages::Stamps,
    hardware::Clocks,
    stages::{Source, Stamp},
};

static CLOCKS: OnceLock<Arc<Clocks>> = OnceLock::new();

/// From now on sockets ask for the stamps of cards, which these clocks bring to the system's, while there are any.
pub fn use_cards(clocks: Arc<Clocks>) {
    // Only the agent calls it, once.
    let _first = CLOCKS.set(clocks);
}

/// Whether there are any now.
pub fn are_used() -> bool {
    CLOCKS.get().is_some_and(|clocks| !clocks.is_empty())
}

/// A card's stamp by the system's clock, if it is known how they relate. TCP does not say which card it was: it is
/// what the clocks agree on that it can be of.
pub fn to_system(stamp: HardwareNanos) -> Option<Stamp> {
    let converted = CLOCKS.get()?.to_system(stamp, None)?;
    Some(Stamp {
        at: converted.time,
        source: Source::Hardware,
        uncertainty: u32::try_from(converted.uncertainty).unwrap_or(u32::MAX),
    })
}

/// The best of what kernel and card say.
pub fn best(stamps: Stamps) -> Option<Stamp> {
    let by_card = stamps.hardware.and_then(to_system);
    by_card.or_else(|| {
        Some(Stamp {
            at: stamps.software?,
            source: Source::Software,
            uncertainty: 0,
        })
    })
}
