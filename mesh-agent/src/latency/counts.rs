//! What became of stamps and of measured requests.

use std::sync::atomic::{AtomicU64, Ordering};

use super::transmit_log::Counts;

/// What became of stamps and measured requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BookCounts {
    /// Stamps.
    pub stamps: Counts,
    /// Requests whose measuring began.
    pub measured: u64,
    /// Of those, whose answers never ended.
    pub unfinished: u64,
}

/// What became of stamps and measured requests, of all that was added to series.
#[derive(Debug, Default)]
pub(super) struct Totals {
    matched: AtomicU64,
    again: AtomicU64,
    unmatched: AtomicU64,
    measured: AtomicU64,
    unfinished: AtomicU64,
}

impl Totals {
    pub(super) fn add(&self, counts: BookCounts) {
        for (all, new) in [
            (&self.matched, counts.stamps.matched),
            (&self.again, counts.stamps.again),
            (&self.unmatched, counts.stamps.unmatched),
            (&self.measured, counts.measured),
            (&self.unfinished, counts.unfinished),
        ] {
            if new > 0 {
                all.fetch_add(new, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn get(&self) -> BookCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BookCounts {
            stamps: Counts {
                matched: get(&self.matched),
                again: get(&self.again),
                unmatched: get(&self.unmatched),
            },
            measured: get(&self.measured),
            unfinished: get(&self.unfinished),
        }
    }
}
