//! How a destination did lately, for rates that follow that.

use std::time::{Duration, Instant};

use crate::policy::{rate_limit::follow::Load, sliding_window::SlidingWindow};

/// How far back calls count.
const WINDOW: Duration = Duration::from_secs(10);

/// What a new response time counts in their average: 2 / (N + 1) for N = 20.
const WEIGHT: f64 = 2.0 / 21.0;

/// How a destination did lately.
#[derive(Debug)]
pub struct Recently {
    calls: SlidingWindow,
    /// Average, in seconds.
    response_time: Option<f64>,
}

impl Default for Recently {
    fn default() -> Self {
        Self {
            calls: SlidingWindow::new(WINDOW),
            response_time: None,
        }
    }
}

impl Recently {
    /// A call ended after `took`.
    pub fn add(&mut self, is_failure: bool, took: Duration, now: Instant) {
        self.calls.add(is_failure, now);
        let took = took.as_secs_f64();
        let before = self.response_time.unwrap_or(took);
        self.response_time = Some(before + WEIGHT * (took - before));
    }

    /// What rates follow, with so many requests under way. Without a call for as long as they count, no
    /// time is known any more: a rate that is low because calls were slow must not stay so.
    pub fn load(&mut self, in_flight: u32, now: Instant) -> Load {
        let counts = self.calls.counts(now);
        if counts.all == 0 {
            self.response_time = None;
        }
        Load {
            failure_ratio: f64::from(counts.bad) / f64::from(counts.all.max(1)),
            response_time: self.response_time.unwrap_or_default(),
            in_flight: f64::from(in_flight),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut now = Instant::now();
        let mut recently = Recently::default();
        assert_eq!(recently.load(0, now), Load::default());
        for call in 0..100 {
            recently.add(call % 4 == 0, Duration::from_millis(500), now);
        }
        let load = recently.load(3, now);
        assert!((load.failure_ratio - 0.25).abs() < 1e-9, "{load:?}");
        assert!((load.response_time - 0.5).abs() < 1e-9, "{load:?}");
        assert!((load.in_flight - 3.0).abs() < 1e-9, "{load:?}");
        now += WINDOW * 2;
        assert_eq!(recently.load(0, now), Load::default());
    }
}
