//! The clock of the kernel's packet timestamps.

use std::time::Duration;

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};

/// A time of the system clock (`CLOCK_REALTIME`), in nanoseconds since 1970: what the kernel's software
/// timestamps are in. It can be set, so that differences have to be looked at before they are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// What it is now.
    pub fn now() -> Self {
        // A clock that every Linux has.
        clock_gettime(ClockId::CLOCK_REALTIME).map_or(Self(0), Self::of)
    }

    /// The same as this; 0 for a time before 1970.
    pub fn of(time: TimeSpec) -> Self {
        let nanos = time.tv_sec() * 1_000_000_000 + time.tv_nsec();
        Self(u64::try_from(nanos).unwrap_or(0))
    }

    /// From `earlier` to this, in nanoseconds; negative if it is the other way round.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// The same as a duration; none if it is the other way round.
    pub fn after(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
