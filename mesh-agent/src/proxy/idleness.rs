//! For how long something was not used, as seen by one who looks now and then.

use std::time::{Duration, Instant};

/// After so long without a use, what has series of its own is forgotten: so that metrics have no more
/// than are in use.
pub const IDLE: Duration = Duration::from_mins(15);

/// For how long something was not used. A use costs no look at the clock.
#[derive(Debug)]
pub struct Idleness {
    /// It was, since the last look.
    was_used: bool,
    since: Instant,
}

impl Idleness {
    /// Of what is used now.
    pub const fn new(now: Instant) -> Self {
        Self {
            was_used: true,
            since: now,
        }
    }

    /// It is used.
    pub const fn used(&mut self) {
        self.was_used = true;
    }

    /// Looks whether it was used; true if that is [`IDLE`] ago. Uses count from the look after them.
    pub fn is_over(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.was_used) {
            self.since = now;
        }
        now.saturating_duration_since(self.since) >= IDLE
    }
}
