//! What keeps a destination from being asked too much: breaker, throttle and limits, and what they know.
//!
//! What they decide by is in `policy/`; here is what all requests to a destination share, and what one of
//! them holds while it is under way.

mod admitted;
mod connections;
#[cfg(test)]
mod memory;
mod policy;
mod rates;
mod recently;
mod shared_rates;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderMap;

pub use admitted::Admitted;
pub use connections::{Connections, NoSlot, Slot};
pub use policy::{ProtectionPolicy, critical};
pub use rates::TooMany;
pub use shared_rates::SharedRates;

use self::{policy::RatePolicy, rates::Rates, recently::Recently, shared_rates::Away};
use super::{destinations::Destination, http::Reason};
use crate::{
    config::Mode,
    policy::{
        adaptive_concurrency::AdaptiveConcurrency,
        breaker::{self, Breaker},
        rate_limit::{Quota, follow},
        throttle::Throttle,
    },
};

/// What share of a limit other requests may use, where the policy names critical ones.
const FOR_OTHERS: f64 = 0.9;

/// What the requests to a destination share. Changes of the policy keep it.
#[derive(Debug)]
pub struct Protection {
    state: Mutex<State>,
    /// Requests under way.
    active: AtomicU32,
    /// How many may be, by how long answers take. 0: not known yet.
    adaptive_limit: AtomicU32,
    /// Connections in use.
    pub connections: Arc<Connections>,
}

/// What is only looked at where the policy says so.
#[derive(Debug)]
struct State {
    breaker: Breaker,
    throttle: Option<Throttle>,
    adaptive: Option<AdaptiveConcurrency>,
    rates: Rates,
    recently: Recently,
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The pod that it comes from.
    pub pod: &'a str,
    /// Its headers, if it has any.
    pub headers: Option<&'a HeaderMap>,
    /// It is refused last.
    pub is_critical: bool,
}

/// A request or connection that is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// When it may be tried again, if that is known.
    pub retry_after: Option<Duration>,
    /// What is left of the rate that it is beyond.
    pub quota: Option<Quota>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            retry_after: None,
            quota: None,
        }
    }
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                breaker: Breaker::default(),
                throttle: None,
                adaptive: None,
                rates: Rates::default(),
                recently: Recently::default(),
            }),
            active: AtomicU32::new(0),
            adaptive_limit: AtomicU32::new(0),
            connections: Arc::default(),
        }
    }
}

impl Protection {
    /// Lets a request through, or says why not. What would have refused it and only observes is counted.
    fn admit(
        destination: &Arc<Destination>,
        policy: &ProtectionPolicy,
        asking: &Asking<'_>,
        now: Instant,
    ) -> Result<Admitted, Refusal> {
        let this = &destination.protection;
        let share = share(policy, asking);
        // Refused later, it gives back what it got before; the lock below ends first.
        let mut admitted = Admitted::begin(Arc::clone(destination));
        if let Some(most) = this.most(policy)
            && f64::from(admitted.active) > (f64::from(most) * share).max(1.0)
        {
            destination.refuse(policy.limits_mode, Reason::RequestLimit.into())?;
        }
        let needs_state =
            policy.breaker.is_some() || policy.throttle.is_some() || !policy.rates.is_empty();
        if !needs_state {
            return Ok(admitted);
        }
        let mut state = this.state();
        if let Some(throttle) = &policy.throttle {
            let limits = throttle.limits;
            let throttling = state.throttle.get_or_insert_with(|| Throttle::new(limits));
            if !asking.is_critical && !throttling.admit(limits, now, rand::random) {
                destination.refuse(throttle.mode, Reason::Throttled.into())?;
                admitted.is_throttled = true;
            }
        }
        if let Some(breaker) = &policy.breaker {
            match state.breaker.admit(&breaker.limits, now) {
                Ok(permit) => admitted.permit = Some(permit),
                Err(refused) => destination.refuse(breaker.mode, refused.into())?,
            }
        }
        if !policy.rates.is_empty() {
            let active = admitted.active;
            match state.take(policy, |rate| !rate.is_shared, asking, active, now) {
                // A wait that is only observed is none.
                Ok(wait) if policy.limits_mode == Mode::Enforce => admitted.wait = wait,
                Ok(_) => {}
                Err(too_many) => destination.refuse(policy.limits_mode, too_many.into())?,
            }
        }
        Ok(admitted)
    }

    /// Requests under way.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// What the breaker does now.
    pub fn breaker(&self, policy: &ProtectionPolicy, now: Instant) -> Option<breaker::View> {
        let breaker = policy.breaker.as_ref()?;
        Some(self.state().breaker.view(&breaker.limits, now))
    }

    /// The share of the requests that is refused because others failed.
    pub fn throttled(&self, policy: &ProtectionPolicy, now: Instant) -> Option<f64> {
        let limits = policy.throttle.as_ref()?.limits;
        let mut state = self.state();
        let throttle = state.throttle.as_mut();
        Some(throttle.map_or(0.0, |it| it.rejection_probability(limits, now)))
    }

    /// How many requests may be under way.
    pub fn most(&self, policy: &ProtectionPolicy) -> Option<u32> {
        let adaptive =
            policy
                .adaptive
                .map(|limits| match self.adaptive_limit.load(Ordering::Relaxed) {
                    0 => AdaptiveConcurrency::new(limits).limit(limits),
                    known => known.clamp(limits.min, limits.max),
                });
        match (policy.requests, adaptive) {
            (Some(fixed), Some(adaptive)) => Some(fixed.min(adaptive)),
            (fixed, adaptive) => fixed.or(adaptive),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What it takes beside itself.
    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        self.breaker.heap_bytes() + self.rates.heap_bytes()
    }

    /// Counts a request against those rates that are `counted`.
    fn take(
        &mut self,
        policy: &ProtectionPolicy,
        counted: impl Fn(&RatePolicy) -> bool,
        asking: &Asking<'_>,
        active: u32,
        now: Instant,
    ) -> Result<Duration, TooMany> {
        let load = if policy.follows_load() {
            self.recently.load(active, now)
        } else {
            follow::Load::default()
        };
        let share = share(policy, asking);
        self.rates
            .take(&policy.rates, counted, asking, &load, share, now)
    }
}

/// What share of each limit is there for a request: a little is kept for critical ones.
fn share(policy: &ProtectionPolicy, asking: &Asking<'_>) -> f64 {
    if asking.is_critical || policy.critical.is_empty() {
        1.0
    } else {
        FOR_OTHERS
    }
}

/// Lets a request to `destination` through, or says why not; with what it has to wait for, also by the rates that
/// all agents share.
pub async fn let_through(
    destination: &Arc<Destination>,
    shared: Option<&SharedRates>,
    policy: &ProtectionPolicy,
    asking: &Asking<'_>,
    now: Instant,
) -> Result<Admitted, Refusal> {
    let mut admitted = Protection::admit(destination, policy, asking, now)?;
    if policy.shares_rates() {
        // What is rare is not to make every request larger.
        let taken = Box::pin(take_shared(destination, shared, policy, asking));
        admitted.wait = admitted.wait.max(taken.await?);
    }
    Ok(admitted)
}

/// Counts a request to `destination` against the rates that all agents share: where they count together, or
/// here while that is away. Says how long it has to wait.
async fn take_shared(
    destination: &Destination,
    shared: Option<&SharedRates>,
    policy: &ProtectionPolicy,
    asking: &Asking<'_>,
) -> Result<Duration, Refusal> {
    let protection = &destination.protection;
    let (active, now) = (protection.active(), Instant::now());
    let load = protection.state().recently.load(active, now);
    let mut longest = Duration::ZERO;
    for (index, rate) in policy.rates.iter().enumerate() {
        if !rate.is_shared {
            continue;
        }
        let together = rates::key(rate, asking);
        let key = shared_rates::key(&destination.name, index, rate, together);
        let factor = share(policy, asking) * follow::factor(&rate.follow, &load);
        let taken = match shared {
            Some(shared) => shared.take(&key, rate, factor).await,
            None => Err(Away),
        };
        let taken = taken.unwrap_or_else(|Away| {
            let is_this = |it: &RatePolicy| std::ptr::eq(it, rate);
            protection
                .state()
                .take(policy, is_this, asking, active, now)
        });
        match taken {
            Ok(wait) if policy.limits_mode == Mode::Enforce => longest = longest.max(wait),
            Ok(_) => {}
            Err(too_many) => {
                destination.refuse(policy.limits_mode, too_many.into())?;
            }
        }
    }
    Ok(longest)
}

/// A connection to `destination` as soon as there is one, for at most `within`. `None` where there are more
/// than `policy` allows and that is only observed.
pub async fn connection_slot(
    destination: &Destination,
    policy: &ProtectionPolicy,
    within: Duration,
) -> Result<Option<Slot>, Refusal> {
    let Some(limit) = policy.connections else {
        return Ok(None);
    };
    let connections = &destination.protection.connections;
    let slot = match policy.limits_mode {
        Mode::Enforce => connections.wait(limit, within).await,
        Mode::Observe => connections.at_once(limit),
    };
    if let Ok(slot) = slot {
        return Ok(Some(slot));
    }
    let refusal = Reason::ConnectionLimit.into();
    destination
        .refuse(policy.limits_mode, refusal)
        .map(|()| None)
}

impl From<breaker::Refused> for Refusal {
    fn from(refused: breaker::Refused) -> Self {
        Self {
            reason: Reason::BreakerOpen,
            retry_after: Some(refused.retry_after),
            quota: None,
        }
    }
}

impl From<TooMany> for Refusal {
    fn from(too_many: TooMany) -> Self {
        Self {
            reason: Reason::RateLimited,
            retry_after: Some(too_many.retry_after),
            quota: Some(too_many.quota),
        }
    }
}
