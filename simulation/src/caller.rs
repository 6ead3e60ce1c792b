//! What the agent of one node knows of one service.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_agent::policy::{
    balance::{self, Algorithm, Balancer, EndpointLoad},
    breaker::{Breaker, BreakerLimits, Call, Permit},
    ejection::EndpointHealth,
    overload::{Answer as Told, ToldLevel},
    priority::Priority,
    retry_budget::RetryBudget,
    throttle::Throttle,
};
use rand::{Rng as _, RngExt as _, rngs::SmallRng};

use crate::{
    events::Answer,
    scenario::SERVERS,
    strategy::{EJECTION, THROTTLE},
};

/// When fewer than half of the servers are healthy, all are used.
const PANIC: f64 = 0.5;

/// What the agent of one node knows of one service.
#[derive(Debug)]
pub struct Caller {
    /// Requests under way, and their further tries.
    pub budget: Arc<RetryBudget>,
    breaker: Breaker,
    throttle: Throttle,
    balancer: Balancer,
    servers: Vec<Known>,
}

/// What it knows of one server.
#[derive(Debug)]
struct Known {
    load: EndpointLoad,
    health: EndpointHealth,
    told: ToldLevel,
}

struct Candidate<'a> {
    known: &'a Known,
    is_healthy: bool,
    was_tried: bool,
}

impl balance::Endpoint for Candidate<'_> {
    fn load(&self) -> &EndpointLoad {
        &self.known.load
    }
    fn is_healthy(&self) -> bool {
        self.is_healthy
    }
    fn was_tried(&self) -> bool {
        self.was_tried
    }
}

impl Caller {
    /// One that knows nothing yet.
    pub fn new(now: Instant) -> Self {
        let known = || Known {
            load: EndpointLoad::new(now),
            health: EndpointHealth::default(),
            told: ToldLevel::default(),
        };
        let names = [&b"a"[..], b"b", b"c"].map(|name| (name, 1));
        Self {
            budget: Arc::default(),
            breaker: Breaker::default(),
            throttle: Throttle::new(THROTTLE),
            balancer: Balancer::new(Algorithm::PeakEwma, &names, PANIC),
            servers: (0..SERVERS).map(|_| known()).collect(),
        }
    }

    /// Whether a request is sent at all.
    pub fn admit(
        &mut self,
        is_critical: bool,
        limits: &BreakerLimits,
        now: Instant,
        random: f64,
    ) -> Option<Permit> {
        if !is_critical && !self.throttle.admit(THROTTLE, now, || random) {
            return None;
        }
        self.breaker.admit(limits, now).ok()
    }

    /// What became of a request that was sent.
    pub fn ended(
        &mut self,
        permit: Permit,
        answer: Answer,
        took: Duration,
        limits: &BreakerLimits,
        now: Instant,
        random: f64,
    ) {
        self.throttle.record(answer == Answer::Good, now);
        let call = match answer {
            Answer::Good => Call::Succeeded,
            Answer::Failed => Call::Failed,
            // It does what it can.
            Answer::Overloaded => return,
        };
        self.breaker
            .record(permit, call, took, limits, now, || random);
    }

    /// The server for the next try, other than those in `tried` if it can be; `None` if each has told that it
    /// would refuse it. With how many it stands for.
    pub fn pick(
        &mut self,
        tried: &[usize],
        priority: Priority,
        now: Instant,
        random: &mut SmallRng,
    ) -> Option<(usize, u16)> {
        let mut tried = tried.to_vec();
        for _ in 0..SERVERS {
            let servers = self.servers.iter().enumerate();
            let candidates: Vec<Candidate<'_>> = servers
                .map(|(index, known)| Candidate {
                    known,
                    is_healthy: !known.health.is_out(now),
                    was_tried: tried.contains(&index),
                })
                .collect();
            let picked = self
                .balancer
                .pick(&candidates, None, now, || random.next_u64())?;
            let stands_for = match self.servers[picked].told.ask(priority, now) {
                Told::Admitted => 1,
                Told::Probe { stands_for } => stands_for,
                Told::Refused if tried.contains(&picked) => return None,
                Told::Refused => {
                    tried.push(picked);
                    continue;
                }
            };
            self.servers[picked].load.begin();
            return Some((picked, stands_for));
        }
        None
    }

    /// A try at a server has ended after `took`.
    pub fn tried(&mut self, server: usize, answer: Answer, took: Duration, now: Instant) {
        let all = self.servers.len();
        let out = self
            .servers
            .iter()
            .filter(|it| it.health.is_out(now))
            .count();
        let known = &mut self.servers[server];
        known.load.end();
        match answer {
            Answer::Good => {
                known.load.answered(took, now);
                known.health.succeeded(now, EJECTION);
            }
            Answer::Failed => {
                known.load.failed(now);
                known.health.failed(now, EJECTION, out, all);
            }
            Answer::Overloaded => known.load.failed(now),
        }
    }

    /// A server has told up to which priority it lets requests in.
    pub fn told(&mut self, server: usize, level: u16, now: Instant) {
        self.servers[server].told.told(level, now);
    }
}

/// A number in 0..1.
pub fn chance(random: &mut SmallRng) -> f64 {
    random.random()
}
