//! A destination: its endpoints, its policy and what all its requests share.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{super::http::Reason, endpoint::Endpoint, policy::Policy};
use crate::{
    config::{Mode, Protocol},
    latency::Sampler,
    policy::{
        adaptive_timeout::ResponseTimes,
        balance::{self, Balancer, EndpointLoad},
        hedge::{HedgeAfter, HedgePolicy, RecentTimes},
        response_histogram::ResponseHistogram,
        retry_budget::{ActiveRequest, RetryBudget},
    },
    proxy::{
        occasionally::Occasionally,
        protection::{Protection, Refusal},
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
    /// What keeps it from being asked too much.
    pub protection: Arc<Protection>,
    /// Which of its requests are measured.
    pub sampler: Arc<Sampler>,
    /// The last client spoke before its server: then the next is likely to.
    pub client_speaks_first: AtomicBool,
    /// Which of `endpoints` are near.
    near: Vec<bool>,
    balancer: Balancer,
    response_times: Mutex<ResponseTimes>,
    /// Where hedging goes by them.
    recent_times: Option<Mutex<RecentTimes>>,
}

/// A server, as the configuration has it.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the requests, in proportion.
    pub weight: u32,
    /// Whether it is in the zone of this node, or zones do not matter.
    pub is_near: bool,
}

impl Server {
    /// The only one.
    pub const fn only(address: SocketAddr) -> Self {
        Self {
            address,
            weight: 1,
            is_near: true,
        }
    }
}

/// What became of requests.
#[derive(Debug, Default)]
pub struct RequestCounters {
    /// Requests answered, by the first digit of the status (index 0 for 1xx).
    pub answered: [AtomicU64; 5],
    /// Further tries.
    pub retries: AtomicU64,
    /// Of those, that did not wait for another to fail.
    pub hedges: AtomicU64,
    /// Of those, whose answer was the one that the client got.
    pub hedges_won: AtomicU64,
    /// Further tries that the budget did not allow.
    pub over_budget: AtomicU64,
    /// Answers that the agent made itself, by the number of the reason.
    pub own_answers: [AtomicU64; Reason::ALL.len()],
    /// Requests that it would have refused, but for `mode: observe`, likewise.
    pub would_refuse: [AtomicU64; Reason::ALL.len()],
    /// Says so now and then.
    would_refuse_log: Occasionally,
    /// Answers that stand for a refusal or a failure.
    pub degraded: AtomicU64,
    /// How long answers took until they began.
    pub times: ResponseHistogram,
    /// Requests that were under way at once, at most.
    pub most_active: AtomicU32,
    /// Since when all this is counted.
    pub since: Since,
}

/// When something began: now, by default.
#[derive(Clone, Copy, Debug)]
pub struct Since(pub Instant);

impl Default for Since {
    fn default() -> Self {
        Self(Instant::now())
    }
}

/// Where a status is counted: by its first digit, from 0 for 1xx.
pub(in crate::proxy) fn class(status: u16) -> usize {
    usize::from(status / 100).clamp(1, 5) - 1
}

impl RequestCounters {
    /// A request was answered; by the agent itself, if with a reason.
    pub(in crate::proxy) fn answer(&self, status: u16, own: Option<Reason>) {
        Self::count(&self.answered[class(status)]);
        if let Some(reason) = own {
            Self::count(&self.own_answers[reason.number()]);
        }
    }

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
    is_near: bool,
    warmth: f64,
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
    fn is_near(&self) -> bool {
        self.is_near
    }
    fn warmth(&self) -> f64 {
        self.warmth
    }
}

impl Destination {
    /// One with these servers. What `earlier` knew of servers that stay is kept.
    pub fn new(
        name: Arc<str>,
        protocol: Protocol,
        policy: Arc<Policy>,
        servers: &[Server],
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
            .map(|server| {
                known.get(&server.address).map_or_else(
                    || Arc::new(Endpoint::new(server.address, now)),
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
            .map(|server| server.address.to_string())
            .collect();
        let weighted: Vec<(&[u8], u32)> = names
            .iter()
            .zip(servers)
            .map(|(name, server)| (name.as_bytes(), server.weight))
            .collect();
        let hedge = policy.retries.as_ref().and_then(|retries| retries.hedge);
        let by_quantile = matches!(
            hedge.map(|hedge| hedge.after),
            Some(HedgeAfter::Quantile(_))
        );
        Self {
            name,
            protocol,
            near: servers.iter().map(|server| server.is_near).collect(),
            recent_times: by_quantile.then(|| Mutex::new(RecentTimes::new(now))),
            balancer: Balancer::new(policy.algorithm, &weighted, PANIC_THRESHOLD),
            policy,
            endpoints,
            budget: earlier.map(|it| Arc::clone(&it.budget)).unwrap_or_default(),
            counters: earlier
                .map(|it| Arc::clone(&it.counters))
                .unwrap_or_default(),
            protection: earlier
                .map(|it| Arc::clone(&it.protection))
                .unwrap_or_default(),
            sampler: earlier
                .map(|it| Arc::clone(&it.sampler))
                .unwrap_or_default(),
            client_speaks_first: AtomicBool::new(false),
            response_times: Mutex::default(),
        }
    }

    /// Refuses a request, unless that is only to be observed: then it is counted, and said now and then.
    pub fn refuse(&self, mode: Mode, refusal: Refusal) -> Result<(), Refusal> {
        if mode == Mode::Enforce {
            return Err(refusal);
        }
        let (counters, reason) = (&self.counters, refusal.reason);
        RequestCounters::count(&counters.would_refuse[reason.number()]);
        if counters.would_refuse_log.now() {
            let (name, code) = (&self.name, reason.code());
            tracing::info!("destination {name}: mode observe: would refuse a request: {code}");
        }
        Ok(())
    }

    /// Whether its breaker is open, and acts.
    pub fn is_broken(&self, now: Instant) -> bool {
        let policy = self.policy.protection.as_deref();
        policy.is_some_and(|policy| {
            let acts = (policy.breaker.as_ref()).is_some_and(|it| it.mode == Mode::Enforce);
            let view = acts.then(|| self.protection.breaker(policy, now)).flatten();
            view.and_then(|view| view.probe_in)
                .is_some_and(|left| !left.is_zero())
        })
    }

    /// A request begins.
    pub fn begin(&self) -> ActiveRequest {
        let active = self.budget.begin();
        let (now, _) = self.budget.under_way();
        // Read first: what is shared is written only when it changes.
        let most = &self.counters.most_active;
        if now > most.load(Ordering::Relaxed) {
            most.fetch_max(now, Ordering::Relaxed);
        }
        active
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
            .zip(&self.near)
            .map(|(endpoint, is_near)| Candidate {
                endpoint,
                is_healthy: endpoint.is_healthy(now),
                was_tried: tried.contains(&endpoint.address),
                is_near: *is_near,
                warmth: (self.policy.slow_start).map_or(1.0, |length| endpoint.warmth(length, now)),
            })
            .collect();
        let index = self.balancer.pick(&candidates, key, now, rand::random)?;
        self.endpoints.get(index).map(Arc::clone)
    }

    /// A try at `endpoint` was answered.
    pub fn answered(&self, endpoint: &Endpoint, took: Duration, now: Instant) {
        self.counters.times.add(took);
        endpoint.answered(took, now, self.policy.ejection);
        self.add_response_time(took);
        if let Some(mut times) = self.recent_times() {
            times.add(took, now);
        }
    }

    /// A try at `endpoint` was given up after `took`, because another one was answered sooner.
    pub fn given_up(&self, endpoint: &Endpoint, took: Duration, now: Instant) {
        endpoint.given_up(took, now);
        if let Some(mut times) = self.recent_times() {
            times.add(took, now);
        }
    }

    /// After how long without an answer a request is sent to another endpoint as well.
    pub fn hedge_after(&self, hedge: HedgePolicy, now: Instant) -> Option<Duration> {
        match hedge.after {
            HedgeAfter::Fixed(after) => Some(after),
            HedgeAfter::Quantile(quantile) => self.recent_times()?.quantile(quantile, now),
        }
    }

    fn recent_times(&self) -> Option<std::sync::MutexGuard<'_, RecentTimes>> {
        let times = self.recent_times.as_ref()?;
        Some(times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A try at `endpoint` was refused by its server's agent, because there is too much to do: others are asked
    /// rather, and it stays in rotation. How quickly it refuses says nothing of how quickly it answers.
    pub fn refused(&self, endpoint: &Endpoint, now: Instant) {
        endpoint.refused(now);
    }

    /// A try at `endpoint` failed after `took`.
    pub fn failed(&self, endpoint: &Endpoint, took: Duration, now: Instant) {
        self.add_response_time(took);
        let out = endpoint.failed(now, self.policy.ejection, &self.endpoints);
        if let Some(length) = out {
            tracing::info!(
                "destination {}: {} failed too often and is out of rotation for {length:?}",
                self.name,
                endpoint.address,
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
