//! A time-out that is generous while answers are quick on average, and strict when they are not.

use std::time::Duration;

/// What an adaptive time-out aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveLimits {
    /// What answers may take on average.
    pub target: Duration,
    /// The most that a single one may take.
    pub max: Duration,
    /// How many answers the average looks back on (N).
    pub window: u32,
}

/// The exponential moving average of response times: 2/(N+1) · value + (1 − 2/(N+1)) · average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResponseTimes {
    /// In seconds.
    average: Option<f64>,
}

impl ResponseTimes {
    /// One more answer came, or did not come in time: then `took` is the time-out.
    pub fn add(&mut self, took: Duration, limits: AdaptiveLimits) {
        let share = 2.0 / (f64::from(limits.window) + 1.0);
        let value = took.as_secs_f64();
        self.average = Some(match self.average {
            None => value,
            Some(average) => share * value + (1.0 - share) * average,
        });
    }

    /// The average; `None` before the first answer.
    pub fn average(&self) -> Option<Duration> {
        // A mean of time spans is one.
        self.average.map(Duration::from_secs_f64)
    }

    /// What the next answer may take: the target and, while the average is under it, as much of what
    /// lies between target and maximum as the average lies under the target.
    pub fn timeout(&self, limits: AdaptiveLimits) -> Duration {
        let target = limits.target.as_secs_f64();
        if target <= 0.0 {
            return limits.target;
        }
        let slack = 1.0 - self.average.unwrap_or(0.0) / target;
        let room = limits.max.saturating_sub(limits.target);
        limits.target + room.mul_f64(slack.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: AdaptiveLimits = AdaptiveLimits {
        target: Duration::from_millis(200),
        max: Duration::from_secs(1),
        window: 9,
    };

    /// Worked by hand: a fifth of each value and four fifths of the average before.
    #[test]
    fn a_worked_table() {
        let table = [
            // answer, average after it, time-out after it, all in milliseconds
            (100.0, 100.0, 600.0),
            (50.0, 90.0, 640.0),
            (200.0, 112.0, 552.0),
            (600.0, 209.6, 200.0),
            (0.0, 167.68, 329.28),
            (167.68, 167.68, 329.28),
        ];
        let mut times = ResponseTimes::default();
        assert_eq!(times.timeout(LIMITS), LIMITS.max);
        for (took, average, timeout) in table {
            times.add(Duration::from_secs_f64(took / 1e3), LIMITS);
            let is = times.average().unwrap().as_secs_f64() * 1e3;
            assert!((is - average).abs() < 1e-6, "{is} is not {average}");
            let is = times.timeout(LIMITS).as_secs_f64() * 1e3;
            assert!((is - timeout).abs() < 1e-4, "{is} is not {timeout}");
        }
    }

    proptest! {
        #[test]
        fn it_is_between_target_and_maximum_and_strict_from_the_target_on(
            answers in prop::collection::vec(0..3_000_u64, 0..200),
        ) {
            let mut times = ResponseTimes::default();
            for took in answers {
                times.add(Duration::from_millis(took), LIMITS);
                let timeout = times.timeout(LIMITS);
                prop_assert!((LIMITS.target..=LIMITS.max).contains(&timeout));
                if times.average().unwrap() >= LIMITS.target {
                    prop_assert_eq!(timeout, LIMITS.target);
                }
            }
        }
    }
}
