//! Takes endpoints that fail out of rotation for a while.

use std::time::{Duration, Instant};

use super::sliding_window::SlidingWindow;

/// When an endpoint is taken out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EjectionLimits {
    /// After so many failures without a success between them.
    pub consecutive: u32,
    /// And when so many of its calls failed.
    pub share: Option<FailureShare>,
    /// For so long, times how often it happened lately.
    pub base: Duration,
    /// For no longer than this.
    pub max: Duration,
    /// Largest share of the endpoints that may be out at once, from 0 to 1.
    pub at_most: f64,
}

/// A share of failures that is too large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailureShare {
    /// From this share on, from 0 to 1.
    pub ratio: f64,
    /// With fewer calls it says nothing.
    pub minimum_calls: u32,
    /// How far back calls count.
    pub window: Duration,
}

/// How one endpoint does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EndpointHealth {
    failures: u32,
    /// How often it was taken out, less what it has atoned for since.
    times: u32,
    out_until: Option<Instant>,
    /// When it came or comes back the last time.
    back_at: Option<Instant>,
    /// Its calls, if their share of failures counts.
    calls: Option<SlidingWindow>,
}

impl EndpointHealth {
    /// Whether it is out.
    pub fn is_out(&self, now: Instant) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }

    /// Until when it is out, if it is.
    pub fn out_until(&self, now: Instant) -> Option<Instant> {
        self.out_until.filter(|until| now < *until)
    }

    /// Since when it is in rotation again, if it was out lately.
    pub fn back_since(&self, now: Instant) -> Option<Instant> {
        self.back_at.filter(|back| *back <= now)
    }

    /// It succeeded.
    pub fn succeeded(&mut self, now: Instant, limits: EjectionLimits) {
        self.failures = 0;
        self.count(false, now, limits.share);
        // One ejection is forgotten for each base time in rotation, as in Envoy.
        while self.times > 0
            && let Some(until) = self.out_until
            && now.saturating_duration_since(until) >= limits.base
        {
            self.times -= 1;
            self.out_until = until.checked_add(limits.base);
            if limits.base.is_zero() || self.times == 0 {
                self.times = 0;
                self.out_until = None;
                self.back_at = None;
            }
        }
    }

    /// It failed. Says for how long it is taken out, if it is now: `out` of its `all` peers (itself
    /// among them) are out already.
    pub fn failed(
        &mut self,
        now: Instant,
        limits: EjectionLimits,
        out: usize,
        all: usize,
    ) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let is_due = self.count(true, now, limits.share) || self.failures >= limits.consecutive;
        if !is_due || self.is_out(now) || (out + 1) as f64 > all as f64 * limits.at_most {
            return None;
        }
        self.failures = 0;
        self.calls = None;
        self.times = self.times.saturating_add(1);
        let length = limits.base.saturating_mul(self.times).min(limits.max);
        self.out_until = now.checked_add(length);
        self.back_at = self.out_until;
        Some(length)
    }

    /// Counts a call. True if too many failed.
    fn count(&mut self, is_failure: bool, now: Instant, share: Option<FailureShare>) -> bool {
        let Some(share) = share else {
            return false;
        };
        let window = || SlidingWindow::new(share.window);
        let calls = self.calls.get_or_insert_with(window);
        calls.add(is_failure, now);
        let counts = calls.counts(now);
        counts.all >= share.minimum_calls && counts.ratio() >= share.ratio
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: EjectionLimits = EjectionLimits {
        consecutive: 3,
        share: None,
        base: Duration::from_secs(30),
        max: Duration::from_secs(70),
        at_most: 0.5,
    };

    fn fail(health: &mut EndpointHealth, now: Instant) -> Option<u64> {
        let ejections = (0..3).filter_map(|_| health.failed(now, LIMITS, 0, 2));
        ejections.last().map(|length| length.as_secs())
    }

    #[test]
    fn the_time_grows_and_shrinks_again() {
        let mut health = EndpointHealth::default();
        let mut now = Instant::now();
        for expected in [30, 60, 70, 70] {
            assert_eq!(fail(&mut health, now), Some(expected));
            assert!(health.is_out(now));
            assert_eq!(fail(&mut health, now), None, "once");
            now += Duration::from_secs(expected);
            assert!(!health.is_out(now));
        }
        now += Duration::from_secs(200);
        health.succeeded(now, LIMITS);
        assert_eq!(fail(&mut health, now), Some(30));
    }

    #[test]
    fn a_success_between_failures_ends_the_count() {
        let mut health = EndpointHealth::default();
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(health.failed(now, LIMITS, 0, 2), None);
            assert_eq!(health.failed(now, LIMITS, 0, 2), None);
            health.succeeded(now, LIMITS);
        }
    }

    #[test]
    fn a_share_of_failures_is_enough() {
        let share = FailureShare {
            ratio: 0.5,
            minimum_calls: 10,
            window: Duration::from_secs(10),
        };
        let limits = EjectionLimits {
            share: Some(share),
            ..LIMITS
        };
        let mut health = EndpointHealth::default();
        let mut now = Instant::now();
        // Every second one: never three in a row.
        let five_of_ten = |health: &mut EndpointHealth, now| {
            for _ in 0..5 {
                assert_eq!(health.failed(now, limits, 0, 2), None, "too few calls");
                health.succeeded(now, limits);
            }
        };
        five_of_ten(&mut health, now);
        now += Duration::from_secs(12);
        // What is long ago does not count.
        five_of_ten(&mut health, now);
        assert_eq!(health.failed(now, limits, 0, 2), Some(LIMITS.base));
    }

    proptest! {
        #[test]
        fn no_more_than_allowed_are_out(
            count in 1..10_usize,
            at_most in 0.0..1.0_f64,
            events in prop::collection::vec((0..10_usize, any::<bool>(), 0..40_u64), 1..300),
        ) {
            let limits = EjectionLimits { at_most, ..LIMITS };
            let mut peers = vec![EndpointHealth::default(); count];
            let mut now = Instant::now();
            for (index, is_failure, passed) in events {
                now += Duration::from_secs(passed);
                let out = peers.iter().filter(|peer| peer.is_out(now)).count();
                let peer = &mut peers[index % count];
                if is_failure {
                    peer.failed(now, limits, out, count);
                } else {
                    peer.succeeded(now, limits);
                }
                let out_now = peers.iter().filter(|peer| peer.is_out(now)).count();
                prop_assert!(out_now as f64 <= (count as f64 * at_most).max(out as f64));
            }
        }
    }
}
