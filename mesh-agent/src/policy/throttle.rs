//! Refuses a share of the requests while others fail.
//!
//! "Handling Overload", Site Reliability Engineering (2016), "Client-Side Throttling": a request is refused
//! with probability max(0, (requests - K × accepts) / (requests + 1)). However badly a destination does, it is
//! asked now and then, so that it is found out when it is well again.
//!
//! By the formula alone that is once per window, and after an outage the requests double once per window or so:
//! with two minutes and 1,000 requests a second it takes more than ten minutes until all are let through again.
//! So, beyond the book, one a second is let through in any case, the next sooner after each that is accepted,
//! and when ten in a row were, what was before is forgotten.

use std::time::{Duration, Instant};

use super::sliding_window::SlidingWindow;

/// How soon, and how much, is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThrottleLimits {
    /// How many requests are let through for each that is accepted: from 1 on.
    pub k: f64,
    /// How far back requests count.
    pub window: Duration,
}

/// After so long without a request one is let through; half of that after each that is accepted.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many accepted in a row say more than what was before.
const WELL_AGAIN: u32 = 10;
/// While more than this is refused.
const MUCH: f64 = 0.05;

/// Requests, and how many of them were accepted.
#[derive(Debug)]
pub struct Throttle {
    window: Duration,
    /// Those that were not accepted are the bad ones.
    requests: SlidingWindow,
    /// Accepted since the last that was not.
    in_a_row: u32,
    let_through: Option<Instant>,
    /// The last probability.
    probability: f64,
}

impl Throttle {
    /// One that knows of no requests.
    pub fn new(limits: ThrottleLimits) -> Self {
        Self {
            window: limits.window,
            requests: SlidingWindow::new(limits.window),
            in_a_row: 0,
            let_through: None,
            probability: 0.0,
        }
    }

    /// With what probability a request is refused now: from 0, less than 1.
    pub fn rejection_probability(&mut self, limits: ThrottleLimits, now: Instant) -> f64 {
        if limits.window != self.window {
            *self = Self::new(limits);
        }
        let counts = self.requests.counts(now);
        let requests = f64::from(counts.all);
        let accepts = f64::from(counts.all - counts.bad);
        self.probability = ((requests - limits.k * accepts) / (requests + 1.0)).max(0.0);
        self.probability
    }

    /// Whether a request is let through; `random` gives a number uniform in 0..1. One that is not counts as one that was
    /// not accepted.
    pub fn admit(
        &mut self,
        limits: ThrottleLimits,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> bool {
        let patience = PATIENCE / (1 << self.in_a_row.min(WELL_AGAIN));
        let waited = self.let_through.map(|at| now.saturating_duration_since(at));
        let is_due = waited.is_none_or(|waited| waited >= patience);
        let probability = self.rejection_probability(limits, now);
        if !is_due && probability > 0.0 && random() < probability {
            self.requests.add(true, now);
            return false;
        }
        self.let_through = Some(now);
        true
    }

    /// A request that was let through was accepted, or not.
    pub fn record(&mut self, is_accepted: bool, now: Instant) {
        if is_accepted {
            self.in_a_row = self.in_a_row.saturating_add(1);
            if self.in_a_row == WELL_AGAIN && self.probability > MUCH {
                self.requests.clear();
                for _ in 1..WELL_AGAIN {
                    self.requests.add(false, now);
                }
            }
        } else {
            self.in_a_row = 0;
        }
        self.requests.add(!is_accepted, now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::*;

    const LIMITS: ThrottleLimits = ThrottleLimits {
        k: 2.0,
        window: Duration::from_secs(10),
    };
    const MS: Duration = Duration::from_millis(1);

    struct Server {
        throttle: Throttle,
        now: Instant,
        /// Not by chance: one test in some hundred would see the first ones fail.
        random: SmallRng,
    }

    impl Server {
        fn new() -> Self {
            Self {
                throttle: Throttle::new(LIMITS),
                now: Instant::now(),
                random: SmallRng::seed_from_u64(1),
            }
        }

        /// How many of 1,000 requests a second are sent if it does so well.
        fn sent(&mut self, seconds: u32, accepts: f64) -> u32 {
            let mut sent = 0;
            for _ in 0..seconds * 1000 {
                self.now += MS;
                let chance = || self.random.random();
                if self.throttle.admit(LIMITS, self.now, chance) {
                    sent += 1;
                    let is_accepted = self.random.random::<f64>() < accepts;
                    self.throttle.record(is_accepted, self.now);
                }
            }
            sent
        }
    }

    #[test]
    fn what_is_broken_gets_probes_and_recovers() {
        let mut server = Server::new();
        assert_eq!(server.sent(20, 1.0), 20_000);
        // One a second, and by the formula one in 10,000.
        server.sent(30, 0.0);
        let probes = server.sent(100, 0.0);
        assert!((95..150).contains(&probes), "{probes} probes in 100 s");
        // A second until it is seen, two until it is believed.
        let recovering = server.sent(10, 1.0);
        assert!(recovering > 6_500, "{recovering}");
        assert_eq!(server.sent(10, 1.0), 10_000);
    }

    #[test]
    fn as_many_failures_as_successes_are_borne_and_no_more() {
        let mut server = Server::new();
        // With K = 2.
        assert!(server.sent(60, 0.6) > 59_000);
        server.sent(60, 0.3);
        let few = server.sent(10, 0.3);
        assert!(few < 5_000, "{few} of 10,000");
    }

    proptest! {
        /// It is the formula.
        #[test]
        fn the_probability_is_that_of_the_book(
            accepted in 0..200_u32,
            failed in 0..200_u32,
            k in 1.0..5.0_f64,
        ) {
            let now = Instant::now();
            let limits = ThrottleLimits { k, ..LIMITS };
            let mut throttle = Throttle::new(limits);
            // None in a row, or the rest would be forgotten.
            for request in 0..accepted.max(failed) {
                if request < accepted {
                    throttle.requests.add(false, now);
                }
                if request < failed {
                    throttle.record(false, now);
                }
            }
            let requests = f64::from(accepted + failed);
            let expected = ((requests - k * f64::from(accepted)) / (requests + 1.0)).max(0.0);
            let probability = throttle.rejection_probability(limits, now);
            prop_assert!((probability - expected).abs() < 1e-9);
            prop_assert!((0.0..1.0).contains(&probability));
            prop_assert!(throttle.admit(limits, now, || 0.0), "the first");
            prop_assert!(throttle.admit(limits, now, || probability));
            prop_assert!(probability < 1e-9 || !throttle.admit(limits, now, || probability - 1e-9));
            prop_assert!(throttle.rejection_probability(limits, now + LIMITS.window * 2) < 1e-9);
        }
    }
}
