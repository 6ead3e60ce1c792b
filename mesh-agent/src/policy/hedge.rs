//! When a request that has no answer yet is sent to another server as well: Dean and Barroso, "The Tail at
//! Scale", 2013.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// When a request is sent once more without waiting for what was sent to fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgePolicy {
    /// After how long without an answer.
    pub after: HedgeAfter,
    /// How often for one request.
    pub max: u32,
}

/// After how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeAfter {
    /// Always the same.
    Fixed(Duration),
    /// What this share of the answers took less than lately, from 0 to 1.
    Quantile(f64),
}

impl HedgeAfter {
    /// Reads `p95`, `p99.9` and the like. Only what leaves something on either side makes sense.
    pub fn parse_percentile(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('p')?;
        let is_number = digits.bytes().all(|it| it.is_ascii_digit() || it == b'.');
        let percent: f64 = digits.parse().ok().filter(|_| is_number)?;
        (50.0..=99.99)
            .contains(&percent)
            .then_some(Self::Quantile(percent / 100.0))
    }
}

/// How far back answers count, and up to twice that.
const WINDOW: Duration = Duration::from_secs(30);
/// With fewer answers a quantile says nothing.
const FEWEST: u64 = 20;
/// A quantile is good for so long before it is looked for again.
const GOOD_FOR: Duration = Duration::from_millis(100);
/// Longest time that is told apart.
const LONGEST: Duration = Duration::from_mins(1);

/// How long answers took lately.
#[derive(Debug)]
pub struct RecentTimes {
    /// Microseconds, to two digits: 18 KiB each.
    current: Histogram<u32>,
    former: Histogram<u32>,
    turned: Instant,
    known: Option<(Instant, Duration)>,
}

impl RecentTimes {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        let empty = || {
            let histogram = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 2);
            // These bounds are ones that it takes.
            histogram.unwrap_or_else(|_| unreachable!("1 us to 1 min, two digits"))
        };
        Self {
            current: empty(),
            former: empty(),
            turned: now,
            known: None,
        }
    }

    /// One more.
    pub fn add(&mut self, took: Duration, now: Instant) {
        let age = now.saturating_duration_since(self.turned);
        if age >= WINDOW {
            std::mem::swap(&mut self.current, &mut self.former);
            self.current.reset();
            if age >= 2 * WINDOW {
                self.former.reset();
            }
            self.turned = now;
        }
        self.current.saturating_record(took.as_micros() as u64);
    }

    /// What `quantile` of them took less than; `None` while there are too few.
    pub fn quantile(&mut self, quantile: f64, now: Instant) -> Option<Duration> {
        if let Some((at, known)) = self.known
            && now.saturating_duration_since(at) < GOOD_FOR
        {
            return Some(known);
        }
        let found = self.find(quantile)?;
        self.known = Some((now, found));
        Some(found)
    }

    fn find(&self, quantile: f64) -> Option<Duration> {
        let all = self.current.len() + self.former.len();
        if all < FEWEST {
            return None;
        }
        let below = |micros: u64| {
            self.current.count_between(0, micros) + self.former.count_between(0, micros)
        };
        let wanted = (all as f64 * quantile).ceil() as u64;
        // The smallest that has so many below it: both histograms have the same buckets.
        let (mut low, mut high) = (1, LONGEST.as_micros() as u64);
        while low < high {
            let middle = low + (high - low) / 2;
            if below(middle) >= wanted {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Some(Duration::from_micros(low))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_read() {
        assert_eq!(
            HedgeAfter::parse_percentile("p95"),
            Some(HedgeAfter::Quantile(0.95))
        );
        assert_eq!(
            HedgeAfter::parse_percentile("p50"),
            Some(HedgeAfter::Quantile(0.5))
        );
        for bad in [
            "95", "p", "p100", "p0", "p49", "pinf", "p9e1", "p-95", "p95 ",
        ] {
            assert_eq!(HedgeAfter::parse_percentile(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let start = Instant::now();
        let mut times = RecentTimes::new(start);
        let slow = Duration::from_secs(1);
        let fast = Duration::from_millis(1);
        (0..100).for_each(|_| times.add(slow, start));
        assert!(times.quantile(0.5, start).is_some_and(|it| it > slow / 2));
        let later = start + 3 * WINDOW;
        (0..FEWEST - 1).for_each(|_| times.add(fast, later));
        assert_eq!(times.quantile(0.5, later), None);
        times.add(fast, later);
        let found = times.quantile(0.5, later + GOOD_FOR);
        assert!(found.is_some_and(|it| it < fast * 2), "{found:?}");
    }

    proptest! {
        #[test]
        fn it_is_the_quantile_to_two_digits(
            mut micros in prop::collection::vec(1..5_000_000_u64, 20..300),
            quantile in 0.5..0.999_f64,
        ) {
            let now = Instant::now();
            let mut times = RecentTimes::new(now);
            for (index, micros) in micros.iter().enumerate() {
                // Some of them in each histogram.
                let at = if index < 10 { now } else { now + WINDOW };
                times.add(Duration::from_micros(*micros), at);
            }
            micros.sort_unstable();
            let wanted = micros[(micros.len() as f64 * quantile).ceil() as usize - 1] as f64;
            let found = times.quantile(quantile, now + WINDOW).unwrap().as_micros() as f64;
            prop_assert!((found - wanted).abs() <= wanted * 0.01 + 1.0, "{found} {wanted}");
        }
    }
}
