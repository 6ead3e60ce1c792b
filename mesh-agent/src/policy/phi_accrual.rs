//! How likely it is that a server is gone, by how long it has not been heard of: Hayashibara et al.,
//! "The φ accrual failure detector", 2004.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How many intervals are remembered.
const MOST: usize = 100;
/// With fewer, `expected` is taken for the mean.
const FEWEST: usize = 5;
/// Smallest standard deviation, as a share of the mean: what comes like clockwork may still be late
/// once.
const LEAST_DEVIATION: f64 = 0.1;

/// The intervals at which a server was heard of.
#[derive(Clone, Debug)]
pub struct PhiAccrual {
    /// Seconds.
    intervals: VecDeque<f64>,
    last: Option<Instant>,
    expected: f64,
}

impl PhiAccrual {
    /// Of one that was not heard of yet, and will be every so often.
    pub fn new(expected: Duration) -> Self {
        Self {
            intervals: VecDeque::new(),
            last: None,
            expected: expected.as_secs_f64(),
        }
    }

    /// It was heard of.
    pub fn heard(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            if self.intervals.len() == MOST {
                self.intervals.pop_front();
            }
            let interval = now.saturating_duration_since(last).as_secs_f64();
            self.intervals.push_back(interval);
        }
    }

    /// φ: it is 10^-φ likely that it will still be heard of. `first` is when that was first expected of
    /// one that never was.
    pub fn phi(&self, first: Instant, now: Instant) -> f64 {
        let silent = now.saturating_duration_since(self.last.unwrap_or(first));
        let (mean, deviation) = self.distribution();
        let y = (silent.as_secs_f64() - mean) / deviation;
        // The logistic function stands for the normal distribution (Akka's approximation).
        let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
        let later = if y > 0.0 {
            e / (1.0 + e)
        } else {
            1.0 - 1.0 / (1.0 + e)
        };
        -later.max(f64::MIN_POSITIVE).log10()
    }

    fn distribution(&self) -> (f64, f64) {
        let (mean, variance) = if self.intervals.len() < FEWEST {
            (self.expected, (self.expected / 4.0).powi(2))
        } else {
            let count = self.intervals.len() as f64;
            let mean = self.intervals.iter().sum::<f64>() / count;
            let squares = self.intervals.iter().map(|it| (it - mean).powi(2));
            (mean, squares.sum::<f64>() / count)
        };
        (mean, variance.sqrt().max(mean * LEAST_DEVIATION).max(1e-6))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn regular_ones_are_missed_sooner_than_irregular_ones() {
        let start = Instant::now();
        let mut regular = PhiAccrual::new(SECOND);
        let mut irregular = PhiAccrual::new(SECOND);
        let (mut one, mut other) = (start, start);
        for number in 0..100 {
            one += SECOND;
            regular.heard(one);
            other += if number % 2 == 0 {
                SECOND / 5
            } else {
                SECOND * 9 / 5
            };
            irregular.heard(other);
        }
        assert!(regular.phi(start, one + SECOND) < 1.0);
        assert!(regular.phi(start, one + SECOND * 2) > 8.0);
        assert!(irregular.phi(start, other + SECOND * 2) < 3.0);
        assert!(irregular.phi(start, other + SECOND * 7) > 8.0);
    }

    #[test]
    fn one_that_never_spoke_is_missed_too() {
        let start = Instant::now();
        let silent = PhiAccrual::new(SECOND);
        assert!(silent.phi(start, start + SECOND) < 1.0);
        assert!(silent.phi(start, start + SECOND * 5) > 8.0);
    }

    proptest! {
        /// Silence only ever makes it likelier that it is gone.
        #[test]
        fn phi_grows_with_silence(
            intervals in prop::collection::vec(1..5000_u64, 0..150),
            silence in prop::collection::vec(0..10_000_u64, 2..20),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut phi = PhiAccrual::new(SECOND);
            for interval in intervals {
                now += Duration::from_millis(interval);
                phi.heard(now);
            }
            let mut before = 0.0;
            for passed in silence {
                now += Duration::from_millis(passed);
                let value = phi.phi(start, now);
                prop_assert!(value.is_finite() && value >= before - 1e-9);
                before = value;
            }
        }
    }
}
