//! One count, begun anew when its time is over.

use super::{Answer, Counter, Left, Terms};

/// Promises: never more than the limit in one window. A window begins with the first request after the
/// former one (as with a counter that expires in Redis), so that a counter forgotten between two windows
/// makes no difference.
#[derive(Clone, Debug, Default)]
pub(super) struct FixedWindow {
    since: u64,
    count: u32,
}

impl Counter for FixedWindow {
    fn ask(&mut self, terms: &Terms, now: u64) -> Answer {
        if self.is_idle(terms.per, now) {
            self.count = 0;
        }
        if self.count < terms.limit {
            return Answer::Allowed;
        }
        Answer::Refused {
            retry_after: self.left(terms, now).reset,
        }
    }

    fn add(&mut self, _: &Terms, now: u64) {
        if self.count == 0 {
            self.since = now;
        }
        self.count += 1;
    }

    fn left(&self, terms: &Terms, now: u64) -> Left {
        let end = self.since.saturating_add(terms.per);
        Left {
            remaining: terms.limit.saturating_sub(self.count),
            reset: if self.count == 0 { 0 } else { end - now },
        }
    }

    fn is_idle(&self, per: u64, now: u64) -> bool {
        self.count == 0 || now - self.since >= per
    }
}
