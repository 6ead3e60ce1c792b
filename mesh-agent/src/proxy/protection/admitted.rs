//! What a request holds while it is under way.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::ProtectionPolicy;
use crate::{
    config::Mode,
    policy::{
        adaptive_concurrency::AdaptiveConcurrency,
        breaker::{Call, Change, Permit},
        retry::{HasHeader, TryOutcome},
    },
    proxy::destinations::Destination,
};

/// A request that was let through, until its answer has ended.
#[derive(Debug)]
pub struct Admitted {
    destination: Arc<Destination>,
    /// Requests that were under way when it came, with it.
    pub(super) active: u32,
    pub(super) permit: Option<Permit>,
    /// It would have been refused, and was counted as if it had been.
    pub(super) is_throttled: bool,
    /// How long it has to wait first.
    pub wait: Duration,
    /// How long it took until its answer began, whose trailers are to say what became of it.
    until_headers: Option<Duration>,
}

impl Admitted {
    pub(super) fn begin(destination: Arc<Destination>) -> Self {
        let active = 1 + destination
            .protection
            .active
            .fetch_add(1, Ordering::Relaxed);
        Self {
            destination,
            active,
            permit: None,
            is_throttled: false,
            wait: Duration::ZERO,
            until_headers: None,
        }
    }

    fn policy(&self) -> Option<&ProtectionPolicy> {
        self.destination.policy.protection.as_deref()
    }

    /// What it may take, if it is there to find out whether its destination is well again.
    pub fn probe_timeout(&self) -> Option<Duration> {
        self.permit.filter(Permit::is_probe)?;
        let breaker = self.policy()?.breaker.as_ref()?;
        let timeout = breaker.limits.half_open.timeout;
        timeout.filter(|_| breaker.mode == Mode::Enforce)
    }

    /// Its answer has begun after `took`, or there will be none.
    pub fn ended(&mut self, outcome: TryOutcome<'_>, took: Duration, now: Instant) {
        if let Some(policy) = self.policy() {
            let call = policy.call(outcome);
            self.record(call, took, now);
        }
    }

    /// The agent of its server has refused it. That is what a throttle goes by; a breaker does not, as it would
    /// keep out what is important, too.
    pub fn refused(&self, now: Instant) {
        let mut state = self.destination.protection.state();
        if let Some(throttle) = &mut state.throttle
            && !self.is_throttled
        {
            throttle.record(false, now);
        }
    }

    /// It is a connection, and has come about.
    pub fn connected(&mut self, took: Duration, now: Instant) {
        self.record(Call::Succeeded, took, now);
    }

    /// The answer to a call of gRPC has begun after `took`. Whether what became of it is still to be found
    /// out, in its trailers.
    pub fn waits_for_trailers(&mut self, took: Duration) -> bool {
        let waits = self
            .policy()
            .is_some_and(ProtectionPolicy::looks_at_trailers);
        self.until_headers = waits.then_some(took);
        waits
    }

    /// Its trailers have come, with this status of gRPC; `None` if there will be none.
    pub fn trailers(&mut self, grpc_status: Option<u8>) {
        let (Some(took), Some(policy)) = (self.until_headers.take(), self.policy()) else {
            return;
        };
        let outcome = match grpc_status {
            None => TryOutcome::Reset,
            Some(_) => TryOutcome::Answer {
                status: 200,
                grpc_status,
                headers: &NO_HEADERS,
            },
        };
        let call = policy.call(outcome);
        self.record(call, took, Instant::now());
    }

    pub(super) fn record(&mut self, call: Call, took: Duration, now: Instant) {
        let destination = &self.destination;
        let Some(policy) = destination.policy.protection.as_deref() else {
            return;
        };
        if !policy.learns() {
            return;
        }
        let is_failure = call == Call::Failed;
        let mut state = destination.protection.state();
        if let Some(throttle) = &mut state.throttle
            && !self.is_throttled
        {
            throttle.record(!is_failure, now);
        }
        if policy.follows_load() {
            state.recently.add(is_failure, took, now);
        }
        if let Some(limits) = policy.adaptive {
            let adaptive = state
                .adaptive
                .get_or_insert_with(|| AdaptiveConcurrency::new(limits));
            adaptive.sample(took, self.active, is_failure, limits, now);
            let known = &destination.protection.adaptive_limit;
            known.store(adaptive.limit(limits), Ordering::Relaxed);
        }
        let permit = self.permit.take().zip(policy.breaker.as_ref());
        let change = permit.and_then(|(permit, breaker)| {
            let limits = &breaker.limits;
            state
                .breaker
                .record(permit, call, took, limits, now, rand::random)
        });
        drop(state);
        if let Some(change) = change {
            tell(&destination.name, change);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let protection = &self.destination.protection;
        protection.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No condition for failures looks at headers.
const NO_HEADERS: NoHeaders = NoHeaders;

#[derive(Debug)]
struct NoHeaders;

impl HasHeader for NoHeaders {
    fn has_header(&self, _: &str) -> bool {
        false
    }
}

fn tell(destination: &str, change: Change) {
    match change {
        Change::Opened { why, open_for } => {
            tracing::warn!("destination {destination}: breaker open for {open_for:.1?}: {why}");
        }
        Change::StepPassed { step } => {
            let step = step + 1;
            tracing::info!("destination {destination}: breaker half open, step {step} passed");
        }
        Change::Closed => tracing::info!("destination {destination}: breaker closed"),
    }
}
