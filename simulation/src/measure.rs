//! What is seen of the affected services.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What is seen in one second, by when requests came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// Requests that came.
    pub asked: u32,
    /// Of those, that got a useful answer.
    pub good: u32,
    /// Critical requests that came.
    pub critical: u32,
    /// Of those, that got a useful answer.
    pub critical_good: u32,
    /// Tries that went to servers, by when they were sent.
    pub tries: u32,
}

/// What is seen of a run.
#[derive(Debug)]
pub struct Measured {
    /// Second by second.
    pub seconds: Vec<Second>,
    /// How long useful answers took, in microseconds, while it went wrong and for 10 s after that.
    pub latency: Histogram<u64>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            seconds: Vec::new(),
            latency: Histogram::new_with_bounds(1, 3_600_000_000, 3)
                .unwrap_or_else(|error| panic!("{error}")),
        }
    }
}

impl Measured {
    /// The second in which something happens.
    pub fn at(&mut self, now: Duration) -> &mut Second {
        let second = now.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        &mut self.seconds[second]
    }

    /// All of it between two times.
    pub fn between(&self, from: Duration, to: Duration) -> Second {
        let mut sum = Second::default();
        let seconds = self.seconds.iter().enumerate();
        for (_, second) in
            seconds.filter(|(at, _)| (from.as_secs()..to.as_secs()).contains(&(*at as u64)))
        {
            sum.asked += second.asked;
            sum.good += second.good;
            sum.critical += second.critical;
            sum.critical_good += second.critical_good;
            sum.tries += second.tries;
        }
        sum
    }

    /// How long after `end` the share of useful answers is at least `share` of `before` again, over three
    /// seconds and from then on for ten; `None` if it is not.
    pub fn recovered_after(&self, end: Duration, before: f64, share: f64) -> Option<u64> {
        let end = end.as_secs();
        let last = self.seconds.len() as u64 - 1;
        let is_good = |from: u64, length: u64| {
            let seen = self.between(
                Duration::from_secs(from),
                Duration::from_secs(from + length),
            );
            ratio(seen.good, seen.asked) >= share * before
        };
        (end..last.saturating_sub(10))
            .find(|at| is_good(*at, 3) && is_good(*at, 10))
            .map(|at| at - end)
    }
}

/// A share, 1 of nothing.
pub fn ratio(part: u32, all: u32) -> f64 {
    if all == 0 {
        1.0
    } else {
        f64::from(part) / f64::from(all)
    }
}
