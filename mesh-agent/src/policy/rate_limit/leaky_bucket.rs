//! Shapes: one request at a time goes on, at an even pace; the others wait their turn (Turner, "New
//! Directions in Communications", 1986, as a queue).

use std::collections::VecDeque;

use super::{Answer, Counter, Left, Terms};

/// Promises: requests go on no closer together than `per` / `limit`, and no more than `burst` wait at any
/// time. The pace is rounded to whole nanoseconds, so it is 99% of the limit up to ten million a second.
///
/// A turn once given stays: when the limit changes meanwhile, and when the one that waits gives up.
#[derive(Clone, Debug, Default)]
pub(super) struct LeakyBucket {
    /// When the last one goes on, or went.
    last: Option<u64>,
    /// When those go on that wait, soonest first.
    waiting: VecDeque<u64>,
}

impl LeakyBucket {
    /// When the next one can go on.
    fn turn(&self, terms: &Terms, now: u64) -> u64 {
        let pace = terms.per.div_ceil(u64::from(terms.limit));
        self.last
            .map_or(now, |last| last.saturating_add(pace).max(now))
    }
}

impl Counter for LeakyBucket {
    fn ask(&mut self, terms: &Terms, now: u64) -> Answer {
        while self.waiting.front().is_some_and(|turn| *turn <= now) {
            self.waiting.pop_front();
        }
        let wait = self.turn(terms, now) - now;
        let burst = terms.burst as usize;
        if wait == 0 {
            return Answer::Allowed;
        }
        if self.waiting.len() < burst {
            return Answer::Delayed { wait };
        }
        // The one whose going makes room for one. Without a queue the turn itself must be waited for.
        let last_to_go = self.waiting.get(self.waiting.len() - burst);
        Answer::Refused {
            retry_after: last_to_go.map_or(wait, |turn| turn - now),
        }
    }

    fn add(&mut self, terms: &Terms, now: u64) {
        let turn = self.turn(terms, now);
        self.last = Some(turn);
        if turn > now {
            self.waiting.push_back(turn);
        }
    }

    fn left(&self, terms: &Terms, now: u64) -> Left {
        let reset = self.turn(terms, now) - now;
        let places = terms.burst.saturating_sub(self.waiting.len() as u32);
        Left {
            remaining: places + u32::from(reset == 0),
            reset,
        }
    }

    fn is_idle(&self, per: u64, now: u64) -> bool {
        // The pace is never slower than one in `per`, whatever the factor.
        self.last.is_none_or(|last| last.saturating_add(per) <= now)
    }
}
