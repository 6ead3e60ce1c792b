//! Breaker, throttle and limits as the configuration has them, made ready for use.

use crate::{
    config::{self, CallWindow, Mode, RateAlgorithm, RateKey},
    policy::{
        adaptive_concurrency::AdaptiveLimits,
        breaker::{BreakerLimits, Call, HalfOpen, OpenFor, SlowCalls, Window},
        critical::Critical,
        rate_limit::{
            Algorithm, RateLimit,
            follow::{Rule, Signal},
        },
        retry::{RetryCondition, TryOutcome},
        throttle::ThrottleLimits,
    },
};

/// What keeps a destination from being asked too much.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtectionPolicy {
    /// When it is not asked for a while.
    pub breaker: Option<Moded<BreakerLimits>>,
    /// When a share of the requests is refused.
    pub throttle: Option<Moded<ThrottleLimits>>,
    /// What counts as a failure for those two.
    pub failures: Vec<RetryCondition>,
    /// How many requests there may be in a time.
    pub rates: Vec<RatePolicy>,
    /// How many requests may be under way.
    pub requests: Option<u32>,
    /// The same, by how long answers take.
    pub adaptive: Option<AdaptiveLimits>,
    /// How many connections may be in use.
    pub connections: Option<ConnectionLimit>,
    /// Whether the limits act.
    pub limits_mode: Mode,
    /// Which requests are refused last.
    pub critical: Vec<Critical>,
}

/// A part of a policy, and whether it acts.
#[derive(Clone, Debug, PartialEq)]
pub struct Moded<T> {
    /// What it goes by.
    pub limits: T,
    /// Whether it acts.
    pub mode: Mode,
}

/// How many requests there may be in a time.
#[derive(Clone, Debug, PartialEq)]
pub struct RatePolicy {
    /// So many.
    pub limit: RateLimit,
    /// Of what they are counted apart.
    pub by: RateKey,
    /// When fewer.
    pub follow: Vec<Rule>,
    /// Whether all agents count together.
    pub is_shared: bool,
}

/// How many connections may be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// At once.
    pub most: u32,
    /// Requests that may wait for one.
    pub pending: u32,
}

impl ConnectionLimit {
    /// Envoy's `max_pending_requests`.
    const PENDING: u32 = 1024;
}

impl ProtectionPolicy {
    /// What a policy says of it; `None` if nothing.
    pub fn of(policy: &config::Policy) -> Option<Self> {
        let (breaker, limits) = (&policy.breaker, &policy.limits);
        let breaker_mode = breaker.mode.unwrap_or(policy.mode);
        let conditions = breaker.failures.iter();
        let rates = limits.rate.iter().map(RatePolicy::from).collect::<Vec<_>>();
        let protection = Self {
            breaker: breaker.is_on().then(|| Moded {
                limits: BreakerLimits::from(breaker),
                mode: breaker_mode,
            }),
            throttle: breaker.throttle.as_ref().map(|throttle| Moded {
                limits: ThrottleLimits {
                    k: throttle.k,
                    window: throttle.window.get(),
                },
                mode: throttle.mode.unwrap_or(breaker_mode),
            }),
            failures: conditions
                .filter_map(|it| RetryCondition::parse(it))
                .collect(),
            rates,
            requests: limits.requests,
            adaptive: limits.adaptive.as_ref().map(AdaptiveLimits::from),
            connections: limits.connections.map(|most| ConnectionLimit {
                most,
                pending: limits.pending.unwrap_or(ConnectionLimit::PENDING),
            }),
            limits_mode: limits.mode.unwrap_or(policy.mode),
            critical: critical(&policy.critical),
        };
        let does_anything = protection.breaker.is_some()
            || protection.throttle.is_some()
            || !protection.rates.is_empty()
            || protection.requests.is_some()
            || protection.adaptive.is_some()
            || protection.connections.is_some();
        does_anything.then_some(protection)
    }

    /// What became of a request says so much of its destination.
    pub fn call(&self, outcome: TryOutcome<'_>) -> Call {
        let mut failures = self.failures.iter();
        if failures.any(|failure| failure.is_met_by(outcome)) {
            Call::Failed
        } else {
            Call::Succeeded
        }
    }

    /// Whether trailers can hold a failure.
    pub fn looks_at_trailers(&self) -> bool {
        let mut failures = self.failures.iter();
        self.learns() && failures.any(|it| matches!(it, RetryCondition::Grpc(_)))
    }

    /// Whether what becomes of requests matters to it.
    pub fn learns(&self) -> bool {
        self.breaker.is_some()
            || self.throttle.is_some()
            || self.adaptive.is_some()
            || self.follows_load()
    }

    /// Whether agents count any of its rates together.
    pub fn shares_rates(&self) -> bool {
        self.rates.iter().any(|rate| rate.is_shared)
    }

    /// Whether it is wanted to know how the destination does.
    pub fn follows_load(&self) -> bool {
        self.rates.iter().any(|rate| !rate.follow.is_empty())
    }
}

/// Which requests are refused last.
pub fn critical(rules: &[String]) -> Vec<Critical> {
    rules
        .iter()
        .filter_map(|rule| Critical::parse(rule))
        .collect()
}

impl From<&config::AdaptiveRange> for AdaptiveLimits {
    fn from(range: &config::AdaptiveRange) -> Self {
        Self {
            min: range.min,
            max: range.max,
        }
    }
}

impl From<&config::Breaker> for BreakerLimits {
    fn from(breaker: &config::Breaker) -> Self {
        let half_open = &breaker.half_open;
        Self {
            consecutive: breaker.consecutive,
            failure_ratio: breaker.failure_ratio,
            slow: breaker.slow_call.as_ref().map(|slow| SlowCalls {
                threshold: slow.threshold.get(),
                ratio: slow.ratio,
            }),
            window: match breaker.window {
                CallWindow::Time(span) => Window::Time(span.get()),
                CallWindow::Calls(calls) => Window::Calls(calls),
            },
            minimum_calls: breaker.minimum_calls,
            sustained: breaker.sustained.get(),
            open: OpenFor {
                base: breaker.open_for.base.get(),
                max: breaker.open_for.max.get(),
            },
            half_open: HalfOpen {
                steps: half_open.steps.clone().into(),
                calls: half_open.calls,
                timeout: half_open.timeout.map(config::Timespan::get),
            },
        }
    }
}

impl From<&config::Rate> for RatePolicy {
    fn from(rate: &config::Rate) -> Self {
        let rules = rate.follow.iter();
        Self {
            limit: RateLimit {
                algorithm: match rate.algorithm {
                    RateAlgorithm::FixedWindow => Algorithm::FixedWindow,
                    RateAlgorithm::SlidingWindow => Algorithm::SlidingWindow,
                    RateAlgorithm::SlidingLog => Algorithm::SlidingLog,
                    RateAlgorithm::LeakyBucket => Algorithm::LeakyBucket,
                    RateAlgorithm::TokenBucket => Algorithm::TokenBucket,
                },
                limit: rate.limit,
                per: rate.per.get(),
                burst: rate.burst.unwrap_or(0),
            },
            by: rate.by.clone(),
            follow: rules.filter_map(rule).collect(),
            is_shared: rate.shared,
        }
    }
}

/// One of the signals is given: that was validated.
fn rule(rule: &config::FollowRule) -> Option<Rule> {
    let ratio = rule.failure_ratio.map(|it| (Signal::FailureRatio, it));
    let time = rule.response_time.map(|it| it.get().as_secs_f64());
    let time = time.map(|it| (Signal::ResponseTime, it));
    let requests = rule.requests.map(|it| (Signal::InFlight, f64::from(it)));
    let (signal, above) = ratio.or(time).or(requests)?;
    Some(Rule {
        signal,
        above,
        factor: rule.factor,
    })
}
