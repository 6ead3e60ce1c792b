//! The clock of the kernel's packet timestamps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;

/// A time of the system clock (`CLOCK_REALTIME`), in nanoseconds since 1970: what the kernel's software
/// timestamps are in. It can be set, so that differences have to be looked at before they are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// What it is now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since.map_or(0, |since| since.as_nanos() as u64))
    }

    /// The same as this.
    pub fn of(time: TimeSpec) -> Self {
        Self(Duration::from(time).as_nanos() as u64)
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
