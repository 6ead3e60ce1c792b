//! A destination: its endpoints, its policy and what all its requests share.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{super::http::Reason, endpoint::Endpoint, policy::Policy};
use crate::{
    config::Protocol,
    policy::{
        adaptive_timeout::ResponseTimes,
        balance::{self, Balancer, EndpointLoad},
        retry_budget::RetryBudget,
    },
};

/// When fewer than half of the endpoints are healthy, all are used (Envoy's default).
const PANIC_THRESHOLD: f64 = 0.5;

/// A destination and what all its requests share.
#[derive(Debug)]
pub struct Destination {
    /// Its name, or its address if it is not listed.
    pub name: Arc<str>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// What is done for its requests.
    pub policy: Arc<Policy>,
    /// Its servers.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Requests under way and their further tries.
    pub budget: Arc<RetryBudget>,
    /// What became of its requests.
    pub counters: Arc<RequestCounters>,
    /// What was spoken last was HTTP: then clients are likely to speak first.
    pub speaks_http: AtomicBool,
    balancer: Balancer,
    response_times: Mutex<ResponseTimes>,
}

/// What became of requests.
#[derive(Debug, Default)]
pub struct RequestCounters {
    /// Requests answered, by the first digit of the status (index 0 for 1xx).
    pub answered: [AtomicU64; 5],
    /// Further tries.
    pub retries: AtomicU64,
    /// Further tries that the budget did not allow.
    pub over_budget: AtomicU64,
    /// Answers that the agent made itself, by the number of the reason.
    pub own_answers: [AtomicU64; Reason::ALL.len()],
}

impl RequestCounters {
    /// One more of them.
    pub(in crate::proxy) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// An endpoint as one request sees it.
struct Candidate<'a> {
    endpoint: &'a Endpoint,
    is_healthy: bool,
    was_tried: bool,
}

impl balance::Endpoint for Candidate<'_> {
    fn load(&self) -> &EndpointLoad {
        &self.endpoint.load
    }
    fn is_healthy(&self) -> bool {
        self.is_healthy
    }
    fn was_tried(&self) -> bool {
        self.was_tried
    }
}

impl Destination {
    /// One with these servers and weights. What `earlier` knew of servers that stay is kept.
    pub fn new(
        name: Arc<str>,
        protocol: Protocol,
        policy: Arc<Policy>,
        servers: &[(SocketAddr, u32)],
        earlier: Option<&Self>,
        now: Instant,
    ) -> Self {
        let known: HashMap<SocketAddr, &Arc<Endpoint>> = earlier
            .into_iter()
            .flat_map(|earlier| &earlier.endpoints)
            .map(|endpoint| (endpoint.address, endpoint))
            .collect();
        let endpoints: Vec<Arc<Endpoint>> = servers
            .iter()
            .map(|(address, _)| {
                known.get(address).map_or_else(
                    || Arc::new(Endpoint::new(*address, now)),
                    |known| Arc::clone(known),
                )
            })
            .collect();
        if policy.health_check.is_none() {
            for endpoint in &endpoints {
                endpoint.forget_checks();
            }
        }
        let names: Vec<String> = servers
            .iter()
            .map(|(address, _)| address.to_string())
            .collect();
        let weighted: Vec<(&[u8], u32)> = names
            .iter()
            .zip(servers)
            .map(|(name, (_, weight))| (name.as_bytes(), *weight))
            .collect();
        Self {
            name,
            protocol,
            balancer: Balancer::new(policy.algorithm, &weighted, PANIC_THRESHOLD),
            policy,
            endpoints,
            budget: earlier.map(|it| Arc::clone(&it.budget)).unwrap_or_default(),
            counters: earlier
                .map(|it| Arc::clone(&it.counters))
                .unwrap_or_default(),
            speaks_http: AtomicBool::new(false),
            response_times: Mutex::default(),
        }
    }

    /// The endpoint for the next try, other than those in `tried` if it can be.
    pub fn pick(
        &self,
        key: Option<u64>,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Option<Arc<Endpoint>> {
        if let [only] = &*self.endpoints {
            return Some(Arc::clone(only));
        }
        let candidates: Vec<Candidate<'_>> = self
            .endpoints
            .iter()
            .map(|endpoint| Candidate {
                endpoint,
                is_healthy: endpoint.is_healthy(now),
                was_tried: tried.contains(&endpoint.address),
            })
            .collect();
        let index = self.balancer.pick(&candidates, key, now, rand::random)?;
        self.endpoints.get(index).map(Arc::clone)
    }

    /// A try at `endpoint` was answered.
    pub fn answered(&self, endpoint: &Endpoint, took: Duration, now: Instant) {
        endpoint.answered(took, now, self.policy.ejection);
        self.add_response_time(took);
    }

    /// A try at `endpoint` failed after `took`.
    pub fn failed(&self, endpoint: &Endpoint, took: Duration, now: Instant) {
        self.add_response_time(took);
        let out = endpoint.failed(now, self.policy.ejection, &self.endpoints);
        if let Some(length) = out {
            tracing::info!(
                "destination {}: {} failed {} times in a row and is out of rotation for {length:?}",
                self.name,
                endpoint.address,
                self.policy.ejection.map_or(0, |limits| limits.consecutive),
            );
        }
    }

    /// How long the next try may take until its answer begins.
    pub fn try_timeout(&self) -> Option<Duration> {
        let adaptive = self.policy.adaptive.map(|limits| {
            let times = self.response_times.lock();
            times
                .unwrap_or_else(PoisonError::into_inner)
                .timeout(limits)
        });
        match (adaptive, self.policy.per_try) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn add_response_time(&self, took: Duration) {
        if let Some(limits) = self.policy.adaptive {
            let mut times = self
                .response_times
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            times.add(took, limits);
        }
    }
}
