//! Counts over the last while.

use std::time::{Duration, Instant};

/// How finely a window slides: its counts are as old as it is long, and up to a tenth older.
const SLICES: usize = 10;

/// Counts of what happened within a window that slides with time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlidingWindow {
    slice: Duration,
    slices: [Counts; SLICES + 1],
    /// Where what happens now is counted.
    current: usize,
    /// When `current` began.
    since: Option<Instant>,
    total: Counts,
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of all.
    pub all: u32,
    /// Of those that count against somebody.
    pub bad: u32,
}

impl Counts {
    /// The share of bad ones, from 0 to 1.
    pub fn ratio(self) -> f64 {
        if self.all == 0 {
            return 0.0;
        }
        f64::from(self.bad) / f64::from(self.all)
    }
}

impl SlidingWindow {
    /// An empty one of this length.
    pub fn new(length: Duration) -> Self {
        Self {
            slice: (length / SLICES as u32).max(Duration::from_nanos(1)),
            slices: [Counts::default(); SLICES + 1],
            current: 0,
            since: None,
            total: Counts::default(),
        }
    }

    /// One more.
    pub fn add(&mut self, is_bad: bool, now: Instant) {
        self.slide(now);
        for counts in [&mut self.slices[self.current], &mut self.total] {
            counts.all = counts.all.saturating_add(1);
            counts.bad = counts.bad.saturating_add(u32::from(is_bad));
        }
    }

    /// How many there were within it.
    pub fn counts(&mut self, now: Instant) -> Counts {
        self.slide(now);
        self.total
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self {
            slice: self.slice,
            ..Self::new(self.slice)
        };
    }

    fn slide(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed < self.slice {
            return;
        }
        let slices = passed.as_nanos() / self.slice.as_nanos();
        if slices > SLICES as u128 {
            self.clear();
            self.since = Some(now);
            return;
        }
        // At most as many as there are.
        let slices = slices as u32;
        for _ in 0..slices {
            self.current = (self.current + 1) % self.slices.len();
            let old = std::mem::take(&mut self.slices[self.current]);
            self.total.all -= old.all;
            self.total.bad -= old.bad;
        }
        self.since = since.checked_add(self.slice * slices);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Everything within the window counts, and nothing that is more than a tenth older.
        #[test]
        fn it_counts_what_the_window_holds(
            length in 1..2000_u64,
            events in prop::collection::vec((0..400_u64, any::<bool>()), 1..300),
        ) {
            let length = Duration::from_millis(length);
            let mut window = SlidingWindow::new(length);
            let mut now = Instant::now();
            let mut all = Vec::new();
            for (passed, is_bad) in events {
                now += Duration::from_millis(passed);
                window.add(is_bad, now);
                all.push((now, is_bad));
                let within = |age: Duration| {
                    let young = all.iter().filter(|(at, _)| now.duration_since(*at) < age);
                    let (all, bad) = young.fold((0, 0), |(all, bad), (_, is_bad)| {
                        (all + 1, bad + u32::from(*is_bad))
                    });
                    Counts { all, bad }
                };
                let (least, most) = (within(length), within(length + length / 10 + Duration::from_nanos(1)));
                let seen = window.counts(now);
                prop_assert!(least.all <= seen.all && seen.all <= most.all, "{least:?} {seen:?} {most:?}");
                prop_assert!(least.bad <= seen.bad && seen.bad <= most.bad);
            }
        }
    }
}
