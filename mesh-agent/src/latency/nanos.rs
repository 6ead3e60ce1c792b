//! The clocks of network cards: another type than the system's, so that the compiler sees to it that the two are
//! never mixed.

/// Nanoseconds by the clock of one network card, since whatever that clock was set to. Only
/// [`ClockRelation`](super::hardware::ClockRelation) makes it a time of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareNanos(pub u64);
