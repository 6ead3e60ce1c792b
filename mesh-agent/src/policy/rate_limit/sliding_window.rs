//! Remembers requests in slices of time.
//!
//! The usual approximation, the former window's count weighted by how much of it is still in view, takes
//! requests to be spread evenly. Bursts at the end of one window and in the middle of the next get half as
//! much again as the limit through. Slices err on the other side only.

use std::collections::VecDeque;

use super::{Answer, Counter, Left, Terms};

/// Into how many slices the time is cut. At most two more are remembered.
const SLICES: u64 = 120;

/// Promises: never more than the limit in any time of `per`. A request counts until the last one of its
/// slice is old enough, so up to 1/120 too long: under demand no less than 120/121 of the limit goes
/// through.
#[derive(Clone, Debug, Default)]
pub(super) struct SlidingWindow {
    /// Those with requests in them, oldest first.
    slices: VecDeque<Slice>,
    /// When the newest began.
    since: u64,
    /// Of all.
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    /// When its last request was.
    last: u64,
    count: u32,
}

impl SlidingWindow {
    /// How long until it has room for one.
    fn retry_after(&self, terms: &Terms, now: u64) -> u64 {
        let mut count = self.count;
        let makes_room = self.slices.iter().find(|slice| {
            count -= slice.count;
            count < terms.limit
        });
        makes_room.map_or(0, |slice| terms.per - (now - slice.last))
    }
}

impl Counter for SlidingWindow {
    fn ask(&mut self, terms: &Terms, now: u64) -> Answer {
        while let Some(slice) = self.slices.front()
            && now - slice.last >= terms.per
        {
            self.count -= slice.count;
            self.slices.pop_front();
        }
        if self.count < terms.limit {
            return Answer::Allowed;
        }
        Answer::Refused {
            retry_after: self.retry_after(terms, now),
        }
    }

    fn add(&mut self, terms: &Terms, now: u64) {
        self.count += 1;
        if let Some(newest) = self.slices.back_mut()
            && now - self.since < terms.per / SLICES
        {
            newest.last = now;
            newest.count += 1;
            return;
        }
        self.since = now;
        self.slices.push_back(Slice {
            last: now,
            count: 1,
        });
    }

    fn left(&self, terms: &Terms, now: u64) -> Left {
        let newest = self.slices.back();
        Left {
            remaining: terms.limit.saturating_sub(self.count),
            reset: newest.map_or(0, |slice| terms.per - (now - slice.last)),
        }
    }

    fn is_idle(&self, per: u64, now: u64) -> bool {
        self.slices
            .back()
            .is_none_or(|slice| now - slice.last >= per)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_small() {
        for gap in [1, 10, 99, 100, 101, 150] {
            let terms = Terms {
                limit: u32::MAX,
                per: 120 * 100,
                burst: 0,
            };
            let mut window = SlidingWindow::default();
            for number in 0..20_000 {
                window.ask(&terms, number * gap);
                window.add(&terms, number * gap);
                assert!(window.slices.len() as u64 <= SLICES + 2);
            }
            assert!(window.slices.capacity() * size_of::<Slice>() <= 2048);
        }
    }
}
