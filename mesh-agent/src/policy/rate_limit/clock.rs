//! Time as a number.

use std::time::Instant;

use super::nanoseconds;

/// Nanoseconds since it was first read. Never goes back, also when a caller that read the time earlier
/// comes later.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    origin: Option<Instant>,
    latest: u64,
}

impl Clock {
    pub(super) fn read(&mut self, now: Instant) -> u64 {
        self.origin.get_or_insert(now);
        self.latest = self.peek(now);
        self.latest
    }

    pub(super) fn peek(&self, now: Instant) -> u64 {
        let since = self
            .origin
            .map(|origin| now.saturating_duration_since(origin));
        since.map_or(0, nanoseconds).max(self.latest)
    }
}
