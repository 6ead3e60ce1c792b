//! Notices that the system's clock was set: stamps of before and after that cannot be compared. Both this clock and the one
//! that is never set go alike otherwise, also where `adjtimex(2)` makes them faster or slower.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::clock::Nanos;

/// Less than this is none: readings of two clocks are not of one moment.
const LEAST: Duration = Duration::from_millis(10);

/// When the clock was set, as far as was noticed. Shared by all threads.
#[derive(Debug)]
pub struct ClockSteps {
    since: Instant,
    /// What the system's clock is ahead of the time since then, in nanoseconds.
    ahead: AtomicI64,
    /// When it was noticed last that this has changed, in nanoseconds since then; or 0.
    noticed: AtomicU64,
}

impl ClockSteps {
    /// From `since` on, when the system's clock said `now`.
    pub fn new(since: Instant, now: Nanos) -> Self {
        Self {
            since,
            ahead: AtomicI64::new(now.0.cast_signed()),
            noticed: AtomicU64::new(0),
        }
    }

    /// Whether it was noticed since `begun` that it was set: that may have been before, while nobody looked, once for each
    /// time. `now` is what both clocks say, and `again` says it anew.
    pub fn are_any(
        &self,
        begun: Instant,
        now: (Instant, Nanos),
        again: impl FnOnce() -> (Instant, Nanos),
    ) -> bool {
        let (now, ahead) = self.ahead(now);
        let known = self.ahead.load(Ordering::Relaxed);
        if differ(ahead, known) {
            // The thread may have been held up between both looks: not twice.
            let (_, again) = self.ahead(again());
            if differ(again, known) && !differ(again, ahead) {
                self.ahead.store(again, Ordering::Relaxed);
                self.noticed.store(now, Ordering::Relaxed);
            }
        }
        let noticed = self.noticed.load(Ordering::Relaxed);
        noticed > 0 && noticed >= self.age(begun)
    }

    fn ahead(&self, (now, system): (Instant, Nanos)) -> (u64, i64) {
        let age = self.age(now);
        (age, system.0.wrapping_sub(age).cast_signed())
    }

    fn age(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.since).as_nanos() as u64
    }
}

fn differ(one: i64, other: i64) -> bool {
    Duration::from_nanos(one.abs_diff(other)) >= LEAST
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const BEGIN: u64 = 1_700_000_000_000_000_000;

    struct Clocks {
        since: Instant,
        steps: ClockSteps,
    }

    impl Clocks {
        fn new() -> Self {
            let since = Instant::now();
            let steps = ClockSteps::new(since, Nanos(BEGIN));
            Self { since, steps }
        }

        /// Both clocks after so many seconds, when the system's was set forward by `set` in all.
        fn at(&self, seconds: u64, set: i64) -> (Instant, Nanos) {
            let now = self.since + Duration::from_secs(seconds);
            let system = BEGIN + seconds * SECOND as u64;
            (now, Nanos(system.wrapping_add_signed(set)))
        }

        fn are_any(&self, begun: u64, now: u64, set: i64) -> bool {
            let begun = self.since + Duration::from_secs(begun);
            let look = self.at(now, set);
            self.steps.are_any(begun, look, || look)
        }
    }

    #[test]
    fn what_was_under_way_when_the_clock_was_set_is_told_from_the_rest() {
        for step in [-3_600 * SECOND, -SECOND / 2, SECOND / 50, 40 * SECOND] {
            let clocks = Clocks::new();
            assert!(!clocks.are_any(1, 5, 0));
            assert!(!clocks.are_any(1, 5, SECOND / 200), "less than matters");
            assert!(clocks.are_any(9, 10, step), "{step}");
            assert!(clocks.are_any(8, 11, step), "it was under way, too");
            assert!(!clocks.are_any(11, 12, step));
            assert!(clocks.are_any(11, 13, 0), "and back");
        }
    }

    #[test]
    fn a_thread_that_is_held_up_between_two_looks_is_no_step() {
        let clocks = Clocks::new();
        let looked_again = Cell::new(false);
        let late = clocks.at(7, SECOND);
        let are_any = clocks.steps.are_any(clocks.since, late, || {
            looked_again.set(true);
            clocks.at(7, 0)
        });
        assert!(!are_any);
        assert!(looked_again.get());
        assert!(!clocks.are_any(1, 8, 0));
    }
}
