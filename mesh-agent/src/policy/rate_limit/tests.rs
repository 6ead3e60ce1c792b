mod oracle;

use std::time::{Duration, Instant};

use oracle::{Must, Oracle};
use proptest::prelude::*;

use super::*;

const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
    Algorithm::SlidingLog,
    Algorithm::LeakyBucket,
    Algorithm::TokenBucket,
];

fn limits() -> impl Strategy<Value = RateLimit> {
    let per = prop_oneof![1..2000_u64, 1000..20_000_000_000_u64];
    let count = || prop_oneof![1..4_u32, 1..50_u32];
    let burst = prop_oneof![Just(0), count(), 50..200_u32];
    let algorithm = prop::sample::select(&ALGORITHMS[..]);
    (algorithm, count(), per, burst).prop_map(|(algorithm, limit, per, burst)| RateLimit {
        algorithm,
        limit,
        per: Duration::from_nanos(per),
        burst,
    })
}

fn factor() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(1.0),
        prop::sample::select(&[0.5, 0.29, 0.1][..]),
        0.001..1.0_f64
    ]
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many at once.
    Burst(u8),
    /// A request after this share of the time between two requests at the limit.
    Paced(f64),
    /// After this share of `per`.
    Later(f64),
    /// Just before, just when, or just after this one would be let through.
    Retry(i8),
    /// With a time read a share of `per` ago.
    Late(f64),
    /// The factor changes.
    Factor(f64),
    /// The limit changes, and the burst.
    Reload(u32, u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (1..60_u8).prop_map(Event::Burst),
        8 => (0.0..2.5_f64).prop_map(Event::Paced),
        3 => (0.0..1.5_f64).prop_map(Event::Later),
        1 => Just(Event::Later(1.0)),
        4 => (-1..2_i8).prop_map(Event::Retry),
        1 => (0.0..1.0_f64).prop_map(Event::Late),
        2 => factor().prop_map(Event::Factor),
        1 => (1..50_u32, 0..50_u32).prop_map(|(limit, burst)| Event::Reload(limit, burst)),
    ];
    prop::collection::vec(event, 1..60)
}

/// A limiter with its oracle.
struct Trial {
    limits: RateLimit,
    factor: f64,
    origin: Instant,
    now: u64,
    limiter: Limiter,
    /// Is dropped whenever it is idle.
    forgetful: Limiter,
    oracle: Oracle,
}

impl Trial {
    fn new(limits: RateLimit) -> Self {
        Self {
            limits,
            factor: 1.0,
            origin: Instant::now(),
            now: 0,
            limiter: Limiter::new(&limits),
            forgetful: Limiter::new(&limits),
            oracle: Oracle::default(),
        }
    }

    fn per(&self) -> f64 {
        self.limits.per.as_nanos() as f64
    }

    /// The time between two requests at the limit, in nanoseconds.
    fn pace(&self) -> f64 {
        self.per() / f64::from(self.limits.limit_at(self.factor))
    }

    fn at(&self, now: u64) -> Instant {
        self.origin + Duration::from_nanos(now)
    }

    fn later(&mut self, nanoseconds: f64) {
        self.now += nanoseconds as u64;
    }

    /// One more request, without a look at the oracle.
    fn take(&mut self) -> Decision {
        let decision = self
            .limiter
            .take(&self.limits, self.factor, self.at(self.now));
        match decision {
            Decision::Allowed(_) => self.oracle.add(self.now, self.now),
            Decision::Delayed { wait, .. } => {
                self.oracle.add(self.now, self.now + nanoseconds(wait));
            }
            Decision::Refused { .. } => {}
        }
        decision
    }

    /// One more request, with a time read so long ago.
    fn request(&mut self, ago: u64) {
        let (limits, factor) = (self.limits, self.factor);
        let now = self.at(self.now.saturating_sub(ago));
        let must = self.oracle.must(&limits, factor, self.now);
        let before = self.limiter.check(&limits, factor, now);
        if self.forgetful.is_idle(&limits, now) {
            self.forgetful = Limiter::new(&limits);
        }
        let forgetful = self.forgetful.take(&limits, factor, self.at(self.now));
        let decision = self.take();
        match (must, decision) {
            (Must::Allow | Must::Either, Decision::Allowed(_))
            | (Must::Refuse | Must::Either, Decision::Refused { .. }) => {}
            (Must::Delay(expected), Decision::Delayed { wait, .. }) => {
                assert_eq!(nanoseconds(wait), expected);
            }
            (must, decision) => panic!("must {must:?}: {decision:?}"),
        }
        assert_eq!(forgetful, decision, "dropped when idle");
        assert_eq!(
            without_quota(before),
            without_quota(decision),
            "checked before"
        );
        self.assert_quota(before.quota(), decision);
        if let Decision::Refused { retry_after, .. } = decision {
            let is_refused = |after: Duration| {
                let now = self.at(self.now) + after;
                self.limiter
                    .clone()
                    .check(&limits, factor, now)
                    .is_refused()
            };
            assert!(!is_refused(retry_after), "{retry_after:?} is too early");
            assert!(
                is_refused(retry_after.saturating_sub(Duration::from_nanos(1))),
                "{retry_after:?} is too late"
            );
        }
    }

    fn assert_quota(&self, before: Quota, decision: Decision) {
        let quota = decision.quota();
        assert_eq!(quota.limit, self.limits.limit_at(self.factor));
        assert!(quota.remaining <= quota.limit);
        assert_eq!(before.remaining == 0, decision.is_refused());
        // As many as it says, and no more, unless more than the limit may come at once.
        let mut copy = self.limiter.clone();
        let mut is_refused = || {
            let decision = copy.take(&self.limits, self.factor, self.at(self.now));
            decision.is_refused()
        };
        assert!((0..quota.remaining).all(|_| !is_refused()));
        assert!(quota.remaining == quota.limit || is_refused());
        // All of it is there again when it says.
        let mut copy = self.limiter.clone();
        let then = self.at(self.now) + quota.reset;
        let restored = copy.check(&self.limits, self.factor, then).quota();
        let fresh = Limiter::new(&self.limits)
            .check(&self.limits, self.factor, then)
            .quota();
        assert_eq!(restored, fresh);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Burst(count) => (0..count).for_each(|_| self.request(0)),
            Event::Paced(share) => {
                self.later(share * self.pace());
                self.request(0);
            }
            Event::Later(share) => {
                self.later(share * self.per());
                self.request(0);
            }
            Event::Retry(offset) => {
                let now = self.at(self.now);
                let mut copy = self.limiter.clone();
                let decision = copy.check(&self.limits, self.factor, now);
                if let Decision::Refused { retry_after, .. } = decision {
                    let then = self.now + nanoseconds(retry_after);
                    self.now = then.saturating_add_signed(i64::from(offset)).max(self.now);
                }
                self.request(0);
            }
            Event::Late(share) => self.request((share * self.per()) as u64),
            Event::Factor(factor) => self.factor = factor,
            Event::Reload(limit, burst) => {
                self.limits.limit = limit;
                self.limits.burst = burst;
            }
        }
    }

    /// Requests for so long, the next at most this share of the pace after it could be let through.
    fn demand(&mut self, time: f64, gap: f64, mut random: impl FnMut() -> f64) {
        let end = self.now + time as u64;
        while self.now < end {
            if let Decision::Refused { retry_after, .. } = self.take() {
                self.now += nanoseconds(retry_after);
            }
            self.later(random() * gap * self.pace());
        }
    }
}

/// Uniform in 0..1, by xorshift64*.
fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn without_quota(decision: Decision) -> Decision {
    let quota = Quota {
        limit: 0,
        remaining: 0,
        reset: Duration::ZERO,
    };
    match decision {
        Decision::Allowed(_) => Decision::Allowed(quota),
        Decision::Delayed { wait, .. } => Decision::Delayed { wait, quota },
        Decision::Refused { retry_after, .. } => Decision::Refused { retry_after, quota },
    }
}

/// Under demand, the share of the limit that goes through within `windows` times `per`.
fn share(trial: &Trial, since: u64, windows: f64) -> f64 {
    let end = since + (windows * trial.per()) as u64;
    let before = since
        .checked_sub(1)
        .map_or(0, |then| trial.oracle.gone_by(then));
    let count = trial.oracle.gone_by(end - 1) - before;
    count as f64 / (windows * f64::from(trial.limits.limit_at(trial.factor)))
}

/// Long enough that a nanosecond more or less between requests makes no difference.
fn long_limits() -> impl Strategy<Value = RateLimit> {
    (limits(), 1..1000_u64).prop_map(|(limits, per)| RateLimit {
        per: Duration::from_micros(per * 1000 + 7),
        ..limits
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Whatever comes, never more than promised goes through, and nothing is refused that would have
    /// been within the promise.
    #[test]
    fn it_keeps_its_promise(limits in limits(), events in events()) {
        let mut trial = Trial::new(limits);
        for event in events {
            trial.happens(event);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn under_demand_the_limit_goes_through(limits in long_limits(), seed: u64) {
        const WINDOWS: f64 = 50.0;
        let mut trial = Trial::new(limits);
        trial.demand(WINDOWS * trial.per(), 0.002, numbers(seed));
        let share = share(&trial, 0, WINDOWS);
        prop_assert!(share >= 0.99, "{share}");
    }

    /// Also when the factor changes, once it has been made up for what went through before.
    #[test]
    fn under_demand_the_limit_goes_through_with_each_factor(
        limits in long_limits(),
        factors in prop::collection::vec((factor(), 0..100_u32), 1..5),
        seed: u64,
    ) {
        const WINDOWS: f64 = 100.0;
        let mut random = numbers(seed);
        let mut trial = Trial::new(limits);
        for (factor, scattered) in factors {
            trial.factor = factor;
            // Those that wait keep the turns they were given.
            let has_turn = trial.oracle.last();
            for _ in 0..scattered {
                trial.later(random() * 2.0 * trial.pace());
                trial.take();
            }
            while trial.take().is_refused() {
                trial.later(0.1 * trial.pace());
            }
            let since = trial.now.max(has_turn);
            let time = (since - trial.now) as f64 + WINDOWS * trial.per();
            trial.demand(time, 0.002, &mut random);
            // The first and the last window are not whole ones.
            let share = share(&trial, since, WINDOWS) * WINDOWS / (WINDOWS - 1.0);
            prop_assert!(share >= 0.99, "{share} of {:?} with {factor}", trial.limits);
        }
    }
}

#[test]
fn factors_scale_the_limit_and_the_burst_but_not_to_nothing() {
    let limits = RateLimit {
        algorithm: Algorithm::TokenBucket,
        limit: 100,
        per: Duration::from_secs(1),
        burst: 0,
    };
    for (factor, expected) in [
        (1.0, 100),
        (7.0, 100),
        (0.29, 29),
        (0.999, 99),
        (0.0001, 1),
        (f64::NAN, 1),
    ] {
        assert_eq!(limits.limit_at(factor), expected);
        assert_eq!(limits.burst_at(factor), expected, "as many as the limit");
    }
    let leaky = RateLimit {
        algorithm: Algorithm::LeakyBucket,
        ..limits
    };
    assert_eq!(leaky.burst_at(1.0), 0, "none waits");
}

#[test]
fn a_limit_of_nothing_lets_nothing_through() {
    for algorithm in ALGORITHMS {
        let limits = RateLimit {
            algorithm,
            limit: 0,
            per: Duration::from_secs(1),
            burst: 5,
        };
        let mut limiter = Limiter::new(&limits);
        assert!(limiter.take(&limits, 1.0, Instant::now()).is_refused());
    }
}

#[test]
fn what_was_counted_stays_when_the_time_changes_but_not_when_the_algorithm_does() {
    for algorithm in ALGORITHMS {
        let minute = RateLimit {
            algorithm,
            limit: 60,
            per: Duration::from_mins(1),
            burst: 60,
        };
        let hour = RateLimit {
            limit: 60,
            per: Duration::from_hours(1),
            ..minute
        };
        let now = Instant::now();
        let mut limiter = Limiter::new(&minute);
        let taken = (0..200).filter(|_| !limiter.take(&minute, 1.0, now).is_refused());
        let is_leaky = algorithm == Algorithm::LeakyBucket;
        assert_eq!(taken.count(), 60 + usize::from(is_leaky));
        assert!(limiter.take(&hour, 1.0, now).is_refused());
        assert!(!limiter.is_idle(&hour, now));
        let other = RateLimit {
            algorithm: ALGORITHMS[usize::from(algorithm == ALGORITHMS[0])],
            ..minute
        };
        assert!(limiter.is_idle(&other, now));
        assert!(!limiter.take(&other, 1.0, now).is_refused());
    }
}
