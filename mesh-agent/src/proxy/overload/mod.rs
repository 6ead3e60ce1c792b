//! What keeps the servers of a pod from being asked more than they can do: so many requests are worked on at
//! once, the others wait for their turn or are refused.
//!
//! In what order they wait, and which are refused, is in `policy/overload/`.

mod policy;
mod turn;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};

pub use policy::{OverloadPolicy, PriorityHeaders};
pub use turn::Turn;

use self::policy::Concurrency;
use super::{destinations::Destination, http::Reason, protection::Refusal};
use crate::{
    config::Mode,
    policy::{
        adaptive_concurrency::AdaptiveConcurrency,
        overload::{Admission, Pushed, Queue, Served, Ticket},
        priority::Priority,
    },
};

/// The requests to the servers of a pod.
#[derive(Debug)]
pub struct OverloadControl {
    policy: OverloadPolicy,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests that are worked on.
    active: u32,
    queue: Queue<oneshot::Sender<Given>>,
    adaptive: Option<AdaptiveConcurrency>,
    admission: Option<Admission>,
    /// What answers take on average, in seconds.
    took: f64,
}

/// What there is to see of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverloadStatus {
    /// Requests that are worked on.
    pub active: u32,
    /// How many may be.
    pub most: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// Up to which priority requests are let in, if not all are.
    pub level: Option<Priority>,
}

/// A request that asks for its turn.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// How important it is.
    pub priority: Priority,
    /// It is refused last.
    pub is_critical: bool,
    /// For how many it stands that its caller's agent has kept back, itself among them.
    pub stands_for: u16,
}

/// A turn, or why there is none.
type Given = Result<Turn, Reason>;

/// What a new answer counts in the average of what they take.
const WEIGHT: f64 = 0.1;

impl OverloadControl {
    /// One with nothing to do.
    pub fn new(policy: OverloadPolicy) -> Self {
        let adaptive = match policy.concurrency {
            Concurrency::Fixed(_) => None,
            Concurrency::Adaptive(limits) => Some(AdaptiveConcurrency::new(limits)),
        };
        let admission = policy.admission.map(|_| Admission::default());
        Self {
            policy,
            state: Mutex::new(State {
                active: 0,
                queue: Queue::default(),
                adaptive,
                admission,
                took: 0.0,
            }),
        }
    }

    /// What it goes by.
    pub const fn policy(&self) -> &OverloadPolicy {
        &self.policy
    }

    /// What there is to see.
    pub fn status(&self) -> OverloadStatus {
        let state = self.state();
        OverloadStatus {
            active: state.active,
            most: state.most(&self.policy),
            waiting: state.queue.len() as u32,
            level: state.level(),
        }
    }

    /// Up to which priority requests are let in, if not all are. Callers are told that: nothing, where it is
    /// only to be observed.
    pub fn level(&self) -> Option<Priority> {
        self.policy.admission?;
        if self.policy.mode == Mode::Observe {
            return None;
        }
        self.state().level()
    }

    /// Waits for a request's turn, or says why it has none.
    pub async fn turn(
        self: &Arc<Self>,
        asking: Asking,
        destination: &Destination,
    ) -> Result<Turn, Refusal> {
        let limits = &self.policy.queue;
        let (ticket, mut given) = match self.begin(asking, destination)? {
            Begun::At(turn) => return Ok(turn),
            Begun::Waits(ticket, given) => (ticket, given),
        };
        let _waiting = Waiting {
            control: self,
            ticket,
        };
        // Whether it may wait that long is known only then.
        for wait in [
            limits.min_wait,
            limits.max_wait.saturating_sub(limits.min_wait),
        ] {
            match timeout(wait, &mut given).await {
                Ok(given) => return Self::given(given),
                Err(_not_yet) => self.expire(),
            }
        }
        Self::given(given.await)
    }

    fn given(given: Result<Given, oneshot::error::RecvError>) -> Result<Turn, Refusal> {
        let given = given.unwrap_or(Err(Reason::QueueTimeout));
        given.map_err(Refusal::from)
    }

    /// A request's turn, if it has it at once, or its place in the queue.
    fn begin(
        self: &Arc<Self>,
        asking: Asking,
        destination: &Destination,
    ) -> Result<Begun, Refusal> {
        let now = Instant::now();
        let mut state = self.state();
        let state = &mut *state;
        if let Some((admission, limits)) = state.admission.as_mut().zip(self.policy.admission) {
            let Asking {
                priority,
                stands_for,
                ..
            } = asking;
            let is_let_in = admission.admits(priority, stands_for, &limits, now);
            if !is_let_in && !asking.is_critical {
                destination.refuse(self.policy.mode, Reason::LowPriority.into())?;
                // Only observed: what is counted below is as if it had been refused.
                return Ok(Begun::At(state.work(self)));
            }
        }
        if state.active < state.most(&self.policy) && state.queue.is_empty() {
            state.waited(Duration::ZERO, now);
            return Ok(Begun::At(state.work(self)));
        }
        if self.policy.mode == Mode::Observe {
            if let Some(reason) = state.would_refuse(&self.policy, now) {
                destination.refuse(Mode::Observe, reason.into())?;
            }
            return Ok(Begun::At(state.work(self)));
        }
        let (sender, receiver) = oneshot::channel();
        let limits = &self.policy.queue;
        let Asking {
            priority,
            is_critical,
            ..
        } = asking;
        match state.queue.push(sender, priority, is_critical, limits, now) {
            Pushed::Waits(ticket) => Ok(Begun::Waits(ticket, receiver)),
            Pushed::Replaced { ticket, evicted } => {
                let _gone = evicted.send(Err(Reason::QueueFull));
                state.expired(Duration::ZERO, now);
                Ok(Begun::Waits(ticket, receiver))
            }
            Pushed::Full(_) => {
                state.expired(Duration::ZERO, now);
                Err(Reason::QueueFull.into())
            }
        }
    }

    /// Refuses those whose time is up.
    fn expire(&self) {
        let now = Instant::now();
        let mut state = self.state();
        let expired = state.queue.expire(&self.policy.queue, now);
        state.refuse(expired, now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn has ended: others may begin.
    fn ended(self: &Arc<Self>) {
        // What a receiver that has gone leaves behind is dropped without the lock: its turn ends as well.
        let mut gone = Vec::new();
        let mut state = self.state();
        state.active = state.active.saturating_sub(1);
        while state.active < state.most(&self.policy) {
            let now = Instant::now();
            let popped = state.queue.pop(&self.policy.queue, now);
            state.refuse(popped.expired, now);
            let Some(next) = popped.served else {
                break;
            };
            state.waited(next.waited, now);
            let turn = state.work(self);
            if let Err(turn) = next.item.send(Ok(turn)) {
                gone.push(turn);
            }
        }
        drop(state);
    }

    /// An answer began after `took`, of a request that began with `active` others under way.
    fn answered(&self, took: Duration, active: u32, is_failure: bool) {
        let mut state = self.state();
        state.took += WEIGHT * (took.as_secs_f64() - state.took);
        if let (Some(adaptive), Concurrency::Adaptive(limits)) =
            (&mut state.adaptive, self.policy.concurrency)
        {
            adaptive.sample(took, active, is_failure, limits, Instant::now());
        }
    }
}

impl State {
    fn most(&self, policy: &OverloadPolicy) -> u32 {
        match (policy.concurrency, &self.adaptive) {
            (Concurrency::Fixed(most), _) => most,
            (Concurrency::Adaptive(limits), Some(adaptive)) => adaptive.limit(limits),
            (Concurrency::Adaptive(limits), None) => limits.max,
        }
    }

    /// One more is worked on.
    fn work(&mut self, control: &Arc<OverloadControl>) -> Turn {
        self.active += 1;
        Turn::new(Arc::clone(control), self.active)
    }

    fn waited(&mut self, wait: Duration, now: Instant) {
        if let Some(admission) = &mut self.admission {
            admission.waited(wait, now);
        }
    }

    fn expired(&mut self, wait: Duration, now: Instant) {
        if let Some(admission) = &mut self.admission {
            admission.expired(wait, now);
        }
    }

    fn refuse(&mut self, expired: Vec<Served<oneshot::Sender<Given>>>, now: Instant) {
        for late in expired {
            self.expired(late.waited, now);
            let _gone = late.item.send(Err(Reason::QueueTimeout));
        }
    }

    fn level(&self) -> Option<Priority> {
        Priority::of_ordinal(self.admission.as_ref()?.level())
    }

    /// Whether a request more would be refused, if those beyond the limit waited: as many are before it as are
    /// beyond it, and each round of them takes as long as answers take.
    fn would_refuse(&mut self, policy: &OverloadPolicy, now: Instant) -> Option<Reason> {
        let most = self.most(policy).max(1);
        let beyond = self.active.saturating_sub(most);
        let wait = self.took * f64::from(beyond + 1) / f64::from(most);
        let refused = if beyond >= policy.queue.size {
            Some(Reason::QueueFull)
        } else {
            (wait > policy.queue.max_wait.as_secs_f64()).then_some(Reason::QueueTimeout)
        };
        let wait = Duration::from_secs_f64(wait).min(policy.queue.max_wait);
        match refused {
            None => self.waited(wait, now),
            Some(_) => self.expired(wait, now),
        }
        refused
    }
}

/// What a request has to begin with.
enum Begun {
    /// Its turn.
    At(Turn),
    /// Its place in the queue, and where its turn comes.
    Waits(Ticket, oneshot::Receiver<Given>),
}

/// A request that waits, until dropped.
struct Waiting<'a> {
    control: &'a OverloadControl,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let removed = self.control.state().queue.remove(self.ticket);
        drop(removed);
    }
}
