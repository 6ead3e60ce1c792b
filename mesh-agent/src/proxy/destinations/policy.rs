//! A policy as the configuration has it, made ready for use.

use std::time::Duration;

use crate::{
    config,
    policy::{
        adaptive_timeout::AdaptiveLimits,
        backoff::Backoff,
        balance::{Algorithm, HashKey},
        ejection::{EjectionLimits, FailureShare},
        health_check::CheckLimits,
        hedge::HedgePolicy,
        retry::{RetryCondition, RetryPolicy},
        retry_budget::BudgetLimits,
    },
    proxy::{
        health_checks::{HealthCheck, Question},
        http::Fallback,
        protection::ProtectionPolicy,
    },
};

/// Clients and servers end what does not move as they see fit.
const INBOUND_IDLE: Duration = Duration::from_hours(24);

/// A policy made ready for use.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether the agent's own part of the time of tries does not count.
    pub by_server_time: bool,
    /// For a connection to come about.
    pub connect: Duration,
    /// For a request with all its tries.
    pub request: Option<Duration>,
    /// For one try.
    pub per_try: Option<Duration>,
    /// For what does not move.
    pub idle: Duration,
    /// For one try, by the average.
    pub adaptive: Option<AdaptiveLimits>,
    /// Header with the milliseconds that a caller has left, in lower case.
    pub timeout_header: http::HeaderName,
    /// When to try again.
    pub retries: Option<Retries>,
    /// How endpoints are picked.
    pub algorithm: Algorithm,
    /// What consistent hashing goes by.
    pub hash_key: Option<HashKey>,
    /// For how long an endpoint that is new or came back gets less than its share.
    pub slow_start: Option<Duration>,
    /// Whether CONNECT is passed on.
    pub allow_connect: bool,
    /// When endpoints are taken out.
    pub ejection: Option<EjectionLimits>,
    /// How endpoints are asked how they are.
    pub health_check: Option<HealthCheck>,
    /// What keeps it from being asked too much.
    pub protection: Option<Box<ProtectionPolicy>>,
    /// What is answered instead of a refusal or a failure.
    pub fallback: Option<Fallback>,
}

/// When to try again, and how much that may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    /// When.
    pub policy: RetryPolicy,
    /// How many at once.
    pub budget: BudgetLimits,
    /// How much of a body is kept for them, in bytes.
    pub buffer: usize,
    /// When not to wait for a try to fail.
    pub hedge: Option<HedgePolicy>,
}

impl Policy {
    /// That of servers in pods: they are only watched over.
    pub fn inbound() -> Self {
        let policy = Self::from(&config::Policy::default());
        Self {
            idle: INBOUND_IDLE,
            ..policy
        }
    }
}

impl From<&config::Policy> for Policy {
    fn from(policy: &config::Policy) -> Self {
        let timeouts = &policy.timeouts;
        Self {
            by_server_time: policy.measure == config::Measure::Server,
            connect: timeouts.connect.get(),
            request: timeouts.request.map(config::Timespan::get),
            per_try: timeouts.per_try.map(config::Timespan::get),
            idle: timeouts.idle.get(),
            adaptive: timeouts.adaptive.as_ref().map(|adaptive| AdaptiveLimits {
                target: adaptive.target.get(),
                max: adaptive.max.get(),
                window: adaptive.window,
            }),
            // Validated before.
            timeout_header: timeouts
                .header
                .parse()
                .unwrap_or_else(|_| http::HeaderName::from_static("x-request-timeout-ms")),
            retries: policy.retries.as_ref().map(Retries::from),
            algorithm: match policy.balance.algorithm {
                config::BalanceAlgorithm::RoundRobin => Algorithm::RoundRobin,
                config::BalanceAlgorithm::Random => Algorithm::Random,
                config::BalanceAlgorithm::LeastRequest => Algorithm::LeastRequest,
                config::BalanceAlgorithm::PeakEwma => Algorithm::PeakEwma,
                config::BalanceAlgorithm::ConsistentHash => Algorithm::ConsistentHash,
            },
            hash_key: policy.balance.key.as_deref().and_then(HashKey::parse),
            slow_start: policy.balance.slow_start.map(config::Timespan::get),
            allow_connect: policy.allow_connect,
            health_check: policy.health_check.as_ref().map(HealthCheck::from),
            protection: ProtectionPolicy::of(policy).map(Box::new),
            fallback: policy.fallback.as_ref().map(Fallback::from),
            ejection: policy
                .breaker
                .ejection
                .as_ref()
                .map(|ejection| EjectionLimits {
                    consecutive: ejection.consecutive,
                    share: ejection.failure_ratio.map(|ratio| FailureShare {
                        ratio,
                        minimum_calls: ejection.minimum_calls,
                        window: ejection.window.get(),
                    }),
                    base: ejection.base.get(),
                    max: ejection.max.get(),
                    at_most: ejection.at_most,
                }),
        }
    }
}

impl From<&config::HealthCheck> for HealthCheck {
    fn from(check: &config::HealthCheck) -> Self {
        Self {
            question: match check.kind {
                config::HealthCheckKind::Tcp => Question::Tcp,
                config::HealthCheckKind::Http => Question::Http(check.path.clone()),
                config::HealthCheckKind::Grpc => Question::Grpc(check.service.clone()),
            },
            interval: check.interval.get(),
            timeout: check.timeout.get(),
            limits: match check.phi {
                Some(threshold) => CheckLimits::Phi {
                    threshold,
                    interval: check.interval.get(),
                },
                None => CheckLimits::InARow {
                    rise: check.rise,
                    fall: check.fall,
                },
            },
        }
    }
}

impl From<&config::Retries> for Retries {
    fn from(retries: &config::Retries) -> Self {
        let on = retries.on.iter();
        Self {
            policy: RetryPolicy {
                attempts: retries.attempts,
                on: on.filter_map(|on| RetryCondition::parse(on)).collect(),
                all_methods: retries.all_methods,
                backoff: Backoff {
                    base: retries.backoff.base.get(),
                    max: retries.backoff.max.get(),
                },
            },
            budget: BudgetLimits {
                ratio: retries.budget.ratio,
                floor: retries.budget.floor,
            },
            buffer: retries.buffer_bytes as usize,
            hedge: retries.hedge.as_ref().and_then(|hedge| {
                Some(HedgePolicy {
                    after: hedge.parsed_after()?,
                    max: hedge.max,
                })
            }),
        }
    }
}
