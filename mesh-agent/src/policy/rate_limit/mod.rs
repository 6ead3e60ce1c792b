//! How many requests may go through in a given time. When more want to, some are refused or made to wait.

mod clock;
mod fixed_window;
pub mod follow;
mod leaky_bucket;
mod sliding_log;
mod sliding_window;
#[cfg(test)]
mod tests;
mod token_bucket;

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use clock::Clock;
use fixed_window::FixedWindow;
use leaky_bucket::LeakyBucket;
pub use sliding_log::MOST_LOGGED;
use sliding_log::SlidingLog;
use sliding_window::SlidingWindow;
use token_bucket::TokenBucket;

/// How requests are counted. What each promises is said where it is implemented, and tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// At most `limit` in each of consecutive windows of `per`; the first request after the end of one
    /// begins the next. Around the end of a window twice as many can come close together. 16 bytes.
    FixedWindow,
    /// At most `limit` in any time of `per`; under demand at least 99% of it. Up to 2 KiB.
    SlidingWindow,
    /// At most `limit` in any time of `per`, exactly. 8 bytes for each request in that time.
    SlidingLog,
    /// Requests are at least `per` / `limit` apart; up to `burst` wait for their turn. 8 bytes for each
    /// that waits.
    LeakyBucket,
    /// At most `burst` + `limit` × t / `per` in any time t. 48 bytes.
    TokenBucket,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// So many requests. With 0 all are refused. For the sliding log no more than [`MOST_LOGGED`].
    pub limit: u32,
    /// In so much time, from a nanosecond on.
    pub per: Duration,
    /// Token bucket: how many may come at once after a pause; 0 stands for `limit`. Leaky bucket: how many
    /// may wait; with 0 none does. The others do not look at it.
    pub burst: u32,
}

impl RateLimit {
    /// The limit while this factor applies: rounded down, but never to 0.
    pub fn limit_at(&self, factor: f64) -> u32 {
        scaled(self.limit, factor)
    }

    /// The burst while this factor applies, likewise. It shrinks with the limit, so that a pause does not
    /// make up for the factor, and those that wait do not wait longer.
    pub fn burst_at(&self, factor: f64) -> u32 {
        let is_token_bucket = self.algorithm == Algorithm::TokenBucket;
        let burst = if is_token_bucket && self.burst == 0 {
            self.limit
        } else {
            self.burst
        };
        scaled(burst, factor)
    }

    fn terms(&self, factor: f64) -> Terms {
        Terms {
            limit: self.limit_at(factor),
            per: nanoseconds(self.per).max(1),
            burst: self.burst_at(factor),
        }
    }
}

/// Whether a request may go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may, at once.
    Allowed(Quota),
    /// It may, but not yet. Only with a leaky bucket.
    Delayed {
        /// It has to wait for so long.
        wait: Duration,
        /// What is left.
        quota: Quota,
    },
    /// It may not.
    Refused {
        /// It could after so long, if nothing else is let through meanwhile.
        retry_after: Duration,
        /// What is left.
        quota: Quota,
    },
}

impl Decision {
    /// What is left.
    pub fn quota(&self) -> Quota {
        match self {
            Self::Allowed(quota) | Self::Delayed { quota, .. } | Self::Refused { quota, .. } => {
                *quota
            }
        }
    }

    /// Whether the request may not go through.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// What is left of a limit: what the `RateLimit` headers tell (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// So many requests per `per`, with the factor that applies now.
    pub limit: u32,
    /// So many of them could come now; at most `limit`, also when a larger burst is allowed.
    pub remaining: u32,
    /// If nothing is let through for so long, all of it is there again.
    pub reset: Duration,
}

/// Counts requests against a limit. The limit is passed to each call, so that it may change; what was
/// counted then stays, unless the algorithm changes.
#[derive(Clone, Debug)]
pub struct Limiter {
    clock: Clock,
    counts: Counts,
}

impl Limiter {
    /// One that has counted nothing yet.
    pub fn new(limits: &RateLimit) -> Self {
        Self {
            clock: Clock::default(),
            counts: Counts::new(limits.algorithm),
        }
    }

    /// What [`take`](Self::take) would say, except that the quota is what is left before. Counts nothing.
    pub fn check(&mut self, limits: &RateLimit, factor: f64, now: Instant) -> Decision {
        self.decide(limits, factor, now, false)
    }

    /// Counts a request, if it may go through. `factor`, above 0 and up to 1, scales the limit.
    ///
    /// A limit with a lower factor also takes into account what was let through with a higher one.
    pub fn take(&mut self, limits: &RateLimit, factor: f64, now: Instant) -> Decision {
        self.decide(limits, factor, now, true)
    }

    /// Whether a new one would do exactly the same, so that this one can be dropped.
    pub fn is_idle(&self, limits: &RateLimit, now: Instant) -> bool {
        let is_other = self.counts.algorithm() != limits.algorithm;
        is_other
            || self
                .counts
                .is_idle(limits.terms(1.0).per, self.clock.peek(now))
    }

    fn decide(
        &mut self,
        limits: &RateLimit,
        factor: f64,
        now: Instant,
        is_taken: bool,
    ) -> Decision {
        if self.counts.algorithm() != limits.algorithm {
            *self = Self::new(limits);
        }
        let now = self.clock.read(now);
        let terms = limits.terms(factor);
        if terms.limit == 0 {
            let quota = Quota {
                limit: 0,
                remaining: 0,
                reset: limits.per,
            };
            return Decision::Refused {
                retry_after: limits.per,
                quota,
            };
        }
        let counter = self.counts.counter();
        let answer = counter.ask(&terms, now);
        if is_taken && !matches!(answer, Answer::Refused { .. }) {
            counter.add(&terms, now);
        }
        let left = counter.left(&terms, now);
        let quota = Quota {
            limit: terms.limit,
            remaining: left.remaining.min(terms.limit),
            reset: Duration::from_nanos(left.reset),
        };
        match answer {
            Answer::Allowed => Decision::Allowed(quota),
            Answer::Delayed { wait } => Decision::Delayed {
                wait: Duration::from_nanos(wait),
                quota,
            },
            Answer::Refused { retry_after } => Decision::Refused {
                retry_after: Duration::from_nanos(retry_after),
                quota,
            },
        }
    }
}

/// A limit with its factor. All times here and below are nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// At least 1 for all counters.
    limit: u32,
    /// At least 1.
    per: u64,
    burst: u32,
}

/// What an algorithm says to a request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Allowed,
    Delayed { wait: u64 },
    Refused { retry_after: u64 },
}

/// What an algorithm has left.
#[derive(Clone, Copy, Debug)]
struct Left {
    remaining: u32,
    reset: u64,
}

/// What an algorithm remembers. `now` never goes back.
trait Counter {
    /// Whether a request may go through. Always asked before the others.
    fn ask(&mut self, terms: &Terms, now: u64) -> Answer;
    /// It goes through.
    fn add(&mut self, terms: &Terms, now: u64);
    /// What is left.
    fn left(&self, terms: &Terms, now: u64) -> Left;
    /// Whether nothing is remembered that could ever matter, whatever factor comes next.
    fn is_idle(&self, per: u64, now: u64) -> bool;
}

#[derive(Clone, Debug)]
enum Counts {
    FixedWindow(FixedWindow),
    SlidingWindow(SlidingWindow),
    SlidingLog(SlidingLog),
    LeakyBucket(LeakyBucket),
    TokenBucket(TokenBucket),
}

impl Counts {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::FixedWindow => Self::FixedWindow(FixedWindow::default()),
            Algorithm::SlidingWindow => Self::SlidingWindow(SlidingWindow::default()),
            Algorithm::SlidingLog => Self::SlidingLog(SlidingLog::default()),
            Algorithm::LeakyBucket => Self::LeakyBucket(LeakyBucket::default()),
            Algorithm::TokenBucket => Self::TokenBucket(TokenBucket::default()),
        }
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Self::FixedWindow(_) => Algorithm::FixedWindow,
            Self::SlidingWindow(_) => Algorithm::SlidingWindow,
            Self::SlidingLog(_) => Algorithm::SlidingLog,
            Self::LeakyBucket(_) => Algorithm::LeakyBucket,
            Self::TokenBucket(_) => Algorithm::TokenBucket,
        }
    }

    fn counter(&mut self) -> &mut dyn Counter {
        match self {
            Self::FixedWindow(it) => it,
            Self::SlidingWindow(it) => it,
            Self::SlidingLog(it) => it,
            Self::LeakyBucket(it) => it,
            Self::TokenBucket(it) => it,
        }
    }

    fn is_idle(&self, per: u64, now: u64) -> bool {
        match self {
            Self::FixedWindow(it) => it.is_idle(per, now),
            Self::SlidingWindow(it) => it.is_idle(per, now),
            Self::SlidingLog(it) => it.is_idle(per, now),
            Self::LeakyBucket(it) => it.is_idle(per, now),
            Self::TokenBucket(it) => it.is_idle(per, now),
        }
    }
}

fn scaled(count: u32, factor: f64) -> u32 {
    if factor >= 1.0 || count == 0 {
        return count;
    }
    // 0.29 × 100 is a little less than 29. `as` saturates.
    ((f64::from(count) * factor + 1e-6) as u32).max(1)
}

fn nanoseconds(time: Duration) -> u64 {
    let seconds = time.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(time.subsec_nanos()))
}
