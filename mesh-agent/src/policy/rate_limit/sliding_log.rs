//! Remembers each request.

use std::collections::VecDeque;

use super::{Answer, Counter, Left, Terms};

/// The largest limit that a sliding log takes; larger ones count as this. It takes 800 kB then: the other
/// algorithms are for such limits.
pub const MOST_LOGGED: u32 = 100_000;

/// Promises: never more than the limit in any time of `per`, and no less than that.
#[derive(Clone, Debug, Default)]
pub(super) struct SlidingLog {
    /// When requests went through within the last `per`, oldest first.
    at: VecDeque<u64>,
}

fn most(terms: &Terms) -> usize {
    terms.limit.min(MOST_LOGGED) as usize
}

impl Counter for SlidingLog {
    fn ask(&mut self, terms: &Terms, now: u64) -> Answer {
        while self.at.front().is_some_and(|at| now - at >= terms.per) {
            self.at.pop_front();
        }
        // The one whose going makes room for one. With a limit that was lowered it is not the first.
        let last_to_go = self.at.len().checked_sub(most(terms));
        match last_to_go.and_then(|index| self.at.get(index)) {
            None => Answer::Allowed,
            Some(at) => Answer::Refused {
                retry_after: terms.per - (now - at),
            },
        }
    }

    fn add(&mut self, _: &Terms, now: u64) {
        self.at.push_back(now);
    }

    fn left(&self, terms: &Terms, now: u64) -> Left {
        Left {
            remaining: most(terms).saturating_sub(self.at.len()) as u32,
            reset: self.at.back().map_or(0, |at| terms.per - (now - at)),
        }
    }

    fn is_idle(&self, per: u64, now: u64) -> bool {
        self.at.back().is_none_or(|at| now - at >= per)
    }
}
