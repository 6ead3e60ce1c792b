//! What the algorithms promise, worked out from a list of all that went through.

use super::super::{Algorithm, RateLimit};

/// Into how many slices the sliding window may cut its time.
const SLICES: u64 = 120;

/// All that went through. Times are nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// When each came, and when it went on.
    through: Vec<(u64, u64)>,
    /// Limits, and from when on they held.
    limits: Vec<(u64, u64)>,
}

/// What the promise leaves to the limiter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Must {
    Allow,
    Delay(u64),
    Refuse,
    /// One way or the other.
    Either,
}

impl Oracle {
    /// What a limiter must say to one that comes now.
    pub(super) fn must(&mut self, limits: &RateLimit, factor: f64, now: u64) -> Must {
        let limit = u64::from(limits.limit_at(factor));
        let burst = limits.burst_at(factor);
        self.limits.push((now, limit));
        let per = limits.per.as_nanos() as u64;
        let allow_if = |is_allowed| {
            if is_allowed {
                Must::Allow
            } else {
                Must::Refuse
            }
        };
        match limits.algorithm {
            Algorithm::FixedWindow => allow_if(self.in_fixed_window(per, now) < limit),
            Algorithm::SlidingLog => allow_if(self.younger_than(per, now) < limit),
            Algorithm::SlidingWindow if self.younger_than(per, now) >= limit => Must::Refuse,
            Algorithm::SlidingWindow if self.younger_than(per + per / SLICES, now) < limit => {
                Must::Allow
            }
            Algorithm::SlidingWindow => Must::Either,
            Algorithm::TokenBucket => allow_if(self.fits_bucket(per, u64::from(burst), now)),
            Algorithm::LeakyBucket => self.leaky_bucket(per, limit, burst, now),
        }
    }

    /// One goes through.
    pub(super) fn add(&mut self, came: u64, went_on: u64) {
        self.through.push((came, went_on));
    }

    /// When the last one went on.
    pub(super) fn last(&self) -> u64 {
        self.through.last().map_or(0, |(_, on)| *on)
    }

    /// How many went on by then.
    pub(super) fn gone_by(&self, then: u64) -> usize {
        self.through.iter().filter(|(_, on)| *on <= then).count()
    }

    fn younger_than(&self, age: u64, now: u64) -> u64 {
        self.through.iter().filter(|(_, on)| now - on < age).count() as u64
    }

    fn in_fixed_window(&self, per: u64, now: u64) -> u64 {
        let mut window = (0, 0);
        for (_, on) in &self.through {
            let (since, count) = window;
            let is_next = count == 0 || on - since >= per;
            window = if is_next {
                (*on, 1)
            } else {
                (since, count + 1)
            };
        }
        if now - window.0 >= per { 0 } else { window.1 }
    }

    /// Whether in each time up to now, with one more there were no more than the burst and what the
    /// limits allow for.
    fn fits_bucket(&self, per: u64, burst: u64, now: u64) -> bool {
        let mut count = 1;
        self.through.iter().rev().all(|(_, since)| {
            count += 1;
            count * u128::from(per)
                <= self.allowed_for(*since, now) + u128::from(burst) * u128::from(per)
        })
    }

    /// The limits times how long they held.
    fn allowed_for(&self, since: u64, now: u64) -> u128 {
        let ends = self.limits.iter().skip(1).map(|(end, _)| *end).chain([now]);
        let times = self.limits.iter().zip(ends).map(|((start, limit), end)| {
            let time = end.max(since) - (*start).max(since);
            u128::from(time) * u128::from(*limit)
        });
        times.sum()
    }

    fn leaky_bucket(&self, per: u64, limit: u64, burst: u32, now: u64) -> Must {
        let last = self.through.last();
        // The first nanosecond in which it is far enough from the last one.
        let turn = last.map_or(now, |(_, on)| now.max(on + per.div_ceil(limit)));
        let waiting = self.through.iter().filter(|(_, on)| *on > now).count();
        match turn - now {
            0 => Must::Allow,
            wait if waiting < burst as usize => Must::Delay(wait),
            _ => Must::Refuse,
        }
    }
}
