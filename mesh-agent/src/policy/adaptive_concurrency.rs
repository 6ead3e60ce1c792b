//! How many requests at once a destination can do, by how long its answers take.
//!
//! The gradient of Envoy's adaptive concurrency filter and Netflix's concurrency-limits: while answers take
//! about as long as they do without queueing, the limit grows by its root; when they take longer, it shrinks
//! in proportion. What they take without queueing is measured anew every half minute with half the limit, not
//! with a handful of requests as in Envoy, where that refuses most of them for as long; and what the root adds
//! keeps the limit off the floor.

use std::time::{Duration, Instant};

/// Between what a limit moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveLimits {
    /// From 1 on.
    pub min: u32,
    /// From `min` on.
    pub max: u32,
}

/// Where it begins, as in concurrency-limits.
const INITIAL: f64 = 20.0;
/// How much longer than without queueing answers may take. That of concurrency-limits' Gradient2: with
/// Envoy's 1.25 the spread of ordinary answers lowers the limit.
const TOLERANCE: f64 = 1.5;
/// It shrinks to no less than this share of itself at once.
const STEEPEST: f64 = 0.5;
/// Answers that are looked at together: so many, and for so long.
const BATCH: u32 = 20;
const BATCH_TIME: Duration = Duration::from_millis(100);
/// How often it is found out anew what answers take without queueing.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// Or sooner, when answers took a tenth less then: they had waited, and may have had to wait still.
const MEASURE_SOON: Duration = Duration::from_secs(1);
const MUCH_LESS: f64 = 0.9;
/// With what share of the limit.
const MEASURED_AT: f64 = 0.5;

/// The limit of a destination, and what it is found by.
#[derive(Clone, Debug)]
pub struct AdaptiveConcurrency {
    limit: f64,
    batch: Batch,
    /// What answers take without queueing, in seconds.
    unloaded: Option<f64>,
    phase: Phase,
    /// When that is to be found out.
    measure_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The limit is lowered, and what waits at the server ends first.
    Draining,
    Measuring,
}

/// Answers that are looked at together.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    begun: Option<Instant>,
    count: u32,
    seconds: f64,
    most_in_flight: u32,
}

impl AdaptiveConcurrency {
    /// One that has seen no answers.
    pub fn new(limits: AdaptiveLimits) -> Self {
        Self {
            limit: clamp(INITIAL, limits),
            batch: Batch::default(),
            unloaded: None,
            phase: Phase::Serving,
            measure_at: None,
        }
    }

    /// How many requests may be under way.
    pub fn limit(&self, limits: AdaptiveLimits) -> u32 {
        let share = if self.phase == Phase::Serving {
            1.0
        } else {
            MEASURED_AT
        };
        clamp(self.limit * share, limits) as u32
    }

    /// A request that began with `in_flight` under way, itself among them, was answered after `took`. A failure
    /// says something only if it took long: what fails at once does not show how busy a server is.
    pub fn sample(
        &mut self,
        took: Duration,
        in_flight: u32,
        is_failure: bool,
        limits: AdaptiveLimits,
        now: Instant,
    ) {
        let seconds = took.as_secs_f64();
        if is_failure && self.unloaded.is_none_or(|unloaded| seconds < unloaded) {
            return;
        }
        let batch = &mut self.batch;
        let begun = *batch.begun.get_or_insert(now);
        batch.count += 1;
        batch.seconds += seconds;
        batch.most_in_flight = batch.most_in_flight.max(in_flight);
        if batch.count < BATCH || now.saturating_duration_since(begun) < BATCH_TIME {
            return;
        }
        let batch = std::mem::take(batch);
        self.decide(
            batch.seconds / f64::from(batch.count),
            batch.most_in_flight,
            limits,
            now,
        );
    }

    fn decide(&mut self, took: f64, most_in_flight: u32, limits: AdaptiveLimits, now: Instant) {
        match self.phase {
            Phase::Draining => self.phase = Phase::Measuring,
            Phase::Measuring => {
                self.phase = Phase::Serving;
                let known = self.unloaded.replace(took);
                let had_waited = known.is_some_and(|known| took < known * MUCH_LESS);
                let next = if had_waited {
                    MEASURE_SOON
                } else {
                    MEASURE_EVERY
                };
                self.measure_at = Some(now + next);
            }
            Phase::Serving if self.measure_at.is_none_or(|at| now >= at) => {
                self.phase = Phase::Draining;
                self.unloaded.get_or_insert(took);
            }
            Phase::Serving => {
                let unloaded = self.unloaded.map_or(took, |known| known.min(took));
                self.unloaded = Some(unloaded);
                let gradient = (TOLERANCE * unloaded / took.max(1e-9)).clamp(STEEPEST, 1.0);
                let next = self.limit * gradient + self.limit.sqrt();
                // What was not asked for is not known to be possible.
                let is_used = f64::from(most_in_flight) * 2.0 >= self.limit;
                if is_used || next < self.limit {
                    self.limit = clamp(next, limits);
                }
            }
        }
    }
}

fn clamp(limit: f64, limits: AdaptiveLimits) -> f64 {
    limit.clamp(f64::from(limits.min), f64::from(limits.max.max(limits.min)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: AdaptiveLimits = AdaptiveLimits { min: 4, max: 1000 };

    /// A server that does `workers` requests at once in `service` each, the others wait. As many clients as
    /// there are ask as soon as they may.
    struct Server {
        workers: f64,
        service: Duration,
    }

    impl Server {
        fn takes(&self, in_flight: u32) -> Duration {
            self.service
                .mul_f64((f64::from(in_flight) / self.workers).max(1.0))
        }
    }

    /// Runs for so long with so many clients; the lowest limit on the way.
    fn run(
        adaptive: &mut AdaptiveConcurrency,
        server: &Server,
        clients: u32,
        length: Duration,
        now: &mut Instant,
    ) -> u32 {
        let end = *now + length;
        let mut lowest = u32::MAX;
        while *now < end {
            let limit = adaptive.limit(LIMITS);
            lowest = lowest.min(limit);
            let in_flight = limit.min(clients);
            let took = server.takes(in_flight);
            *now += took / in_flight;
            adaptive.sample(took, in_flight, false, LIMITS, *now);
        }
        lowest
    }

    #[test]
    fn it_settles_near_what_the_server_can_do_and_stays_there() {
        for (workers, ms) in [(8.0, 5), (32.0, 10), (200.0, 2)] {
            let server = Server {
                workers,
                service: Duration::from_millis(ms),
            };
            let mut now = Instant::now();
            let mut adaptive = AdaptiveConcurrency::new(LIMITS);
            run(
                &mut adaptive,
                &server,
                10_000,
                Duration::from_secs(20),
                &mut now,
            );
            for minute in 0..10 {
                let lowest = run(
                    &mut adaptive,
                    &server,
                    10_000,
                    Duration::from_mins(1),
                    &mut now,
                );
                let limit = f64::from(adaptive.limit(LIMITS));
                assert!(
                    (workers * 0.5..=workers * 2.3).contains(&limit),
                    "{limit} for {workers} after {minute} minutes"
                );
                assert!(f64::from(lowest) >= workers * 0.5, "{lowest} for {workers}");
            }
        }
    }

    #[test]
    fn a_server_that_has_become_slower_for_good_is_not_kept_at_the_floor() {
        let mut now = Instant::now();
        let mut adaptive = AdaptiveConcurrency::new(LIMITS);
        let fast = Server {
            workers: 64.0,
            service: Duration::from_millis(5),
        };
        run(
            &mut adaptive,
            &fast,
            10_000,
            Duration::from_mins(2),
            &mut now,
        );
        let slow = Server {
            service: Duration::from_millis(50),
            ..fast
        };
        run(
            &mut adaptive,
            &slow,
            10_000,
            Duration::from_mins(3),
            &mut now,
        );
        let limit = adaptive.limit(LIMITS);
        assert!((32..=150).contains(&limit), "{limit}");
    }

    #[test]
    fn it_recovers_when_a_slow_phase_ends() {
        let mut now = Instant::now();
        let mut adaptive = AdaptiveConcurrency::new(LIMITS);
        let server = Server {
            workers: 64.0,
            service: Duration::from_millis(5),
        };
        run(
            &mut adaptive,
            &server,
            10_000,
            Duration::from_secs(20),
            &mut now,
        );
        let ill = Server {
            workers: 2.0,
            service: Duration::from_millis(200),
        };
        run(
            &mut adaptive,
            &ill,
            10_000,
            Duration::from_secs(20),
            &mut now,
        );
        let during = adaptive.limit(LIMITS);
        assert!((4..16).contains(&during), "{during}");
        run(
            &mut adaptive,
            &server,
            10_000,
            Duration::from_secs(10),
            &mut now,
        );
        assert!(adaptive.limit(LIMITS) >= 48, "{}", adaptive.limit(LIMITS));
    }

    #[test]
    fn it_does_not_grow_without_demand() {
        let mut now = Instant::now();
        let mut adaptive = AdaptiveConcurrency::new(LIMITS);
        let server = Server {
            workers: 64.0,
            service: Duration::from_millis(5),
        };
        run(&mut adaptive, &server, 3, Duration::from_mins(5), &mut now);
        assert!(adaptive.limit(LIMITS) <= 20, "{}", adaptive.limit(LIMITS));
    }

    #[test]
    fn what_fails_at_once_says_nothing() {
        let mut now = Instant::now();
        let mut adaptive = AdaptiveConcurrency::new(LIMITS);
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            adaptive.sample(Duration::from_millis(20), 20, false, LIMITS, now);
            adaptive.sample(Duration::from_micros(10), 20, true, LIMITS, now);
        }
        let unloaded = adaptive.unloaded.unwrap();
        assert!((unloaded - 0.02).abs() < 1e-6, "{unloaded}");
    }

    proptest! {
        /// Whatever comes, the limit is one, and within its bounds.
        #[test]
        fn it_stays_within_its_bounds(
            min in 1..50_u32,
            more in 0..500_u32,
            samples in prop::collection::vec((0..5_000_000_u64, 0..2000_u32, any::<bool>(), 0..200_u64), 1..2000),
        ) {
            let limits = AdaptiveLimits { min, max: min + more };
            let mut now = Instant::now();
            let mut adaptive = AdaptiveConcurrency::new(limits);
            for (micros, in_flight, is_failure, passed) in samples {
                now += Duration::from_millis(passed);
                adaptive.sample(Duration::from_micros(micros), in_flight, is_failure, limits, now);
                prop_assert!((min..=min + more).contains(&adaptive.limit(limits)));
            }
        }
    }
}
