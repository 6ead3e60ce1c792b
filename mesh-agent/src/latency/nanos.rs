//! Points in time by two clocks that must never be mixed: two types, so that the compiler sees to it.

/// Nanoseconds since 1970 by the system's clock (`CLOCK_REALTIME`), which software timestamps go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemNanos(pub u64);

/// Nanoseconds by the clock of one network card, since whatever that clock was set to. Only
/// [`ClockRelation`](super::hardware::ClockRelation) makes it a [`SystemNanos`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareNanos(pub u64);
