//! The pods of the configuration, and keeping what is enrolled in step with what exists.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    Netns, NetnsIdentity, PodError,
    enrolment::{Enrolment, Ready},
};
use crate::{
    config::Pod,
    kernel::Maps,
    proxy::{ConnectionStatus, Connections},
};

/// Every configured pod.
#[derive(Debug)]
pub struct PodSet {
    maps: Arc<Maps>,
    /// How long the connections of a pod that was removed may go on.
    drain_timeout: Duration,
    next_exclusions_id: AtomicU32,
    inner: Mutex<Inner>,
}

/// What the pods are, by name in the configuration's order, and what is enrolled.
#[derive(Debug, Default)]
struct Inner {
    members: Vec<(Pod, Membership)>,
    enrolled: HashMap<NetnsIdentity, Enrolment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Membership {
    Enrolled(NetnsIdentity),
    /// Its network namespace does not exist (yet).
    Waiting(String),
    /// Something is wrong with it; tried again on the next occasion.
    Failed(String),
}

/// State of a pod, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodState {
    /// Its traffic is captured.
    Enrolled,
    /// Its network namespace does not exist (yet).
    Waiting,
    /// It cannot be enrolled; see the reason.
    Failed,
}

/// What can be told of a pod.
#[derive(Clone, Debug)]
pub struct PodReport {
    /// What the configuration says.
    pub spec: Pod,
    /// Its state.
    pub state: PodState,
    /// Why it is not enrolled.
    pub reason: Option<String>,
    /// Cookie of its network namespace, if enrolled.
    pub netns_cookie: Option<u64>,
    /// How many connections are open through the agent.
    pub connections_open: usize,
    /// Connections through the agent since it was enrolled.
    pub connections_total: u64,
    /// Those of them whose server could not be reached.
    pub connections_failed: u64,
}

/// What to do with pods that exist but cannot be enrolled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    /// Change nothing.
    Abandon,
    /// Leave that pod out, and say so.
    Report,
}

/// A change with everything opened that it needs.
struct Staged {
    pod: Pod,
    outcome: Outcome,
}

enum Outcome {
    /// Enrolled already, perhaps differently.
    Known(NetnsIdentity, Ready),
    /// As it is.
    Unchanged(NetnsIdentity),
    New(Netns, Ready),
    Not(Membership),
}

/// A pod's network namespace, as it is found on a look.
enum Found<'a> {
    Enrolled(NetnsIdentity, &'a Enrolment),
    New(Netns),
}

impl Found<'_> {
    const fn identity(&self) -> NetnsIdentity {
        match self {
            Self::Enrolled(identity, _) => *identity,
            Self::New(netns) => netns.identity(),
        }
    }
}

impl PodSet {
    /// An empty set.
    pub fn new(maps: Arc<Maps>, drain_timeout: Duration) -> Self {
        Self {
            maps,
            drain_timeout,
            next_exclusions_id: AtomicU32::new(1),
            inner: Mutex::default(),
        }
    }

    /// Makes `pods` the pods, whole or not at all: one that exists but cannot be enrolled fails the
    /// whole change. Those that do not exist yet are waited for.
    pub fn apply(&self, pods: &[Pod]) -> Result<(), PodError> {
        self.change(pods, OnFailure::Abandon)
    }

    /// Looks which pods came and went.
    pub fn reconcile(&self) {
        let pods: Vec<Pod> = self
            .lock()
            .members
            .iter()
            .map(|(pod, _)| pod.clone())
            .collect();
        if let Err(error) = self.change(&pods, OnFailure::Report) {
            tracing::error!("{error}");
        }
    }

    /// Exclusion ids from `first` on are used; those below belong to an earlier run.
    pub fn start_exclusions_at(&self, first: u32) {
        self.next_exclusions_id.store(first, Ordering::Relaxed);
    }

    /// Cookies of the enrolled pods.
    pub fn cookies(&self) -> HashSet<u64> {
        self.lock()
            .enrolled
            .values()
            .map(|enrolment| enrolment.netns.cookie())
            .collect()
    }

    /// Every pod, in the configuration's order.
    pub fn report(&self) -> Vec<PodReport> {
        let inner = self.lock();
        inner
            .members
            .iter()
            .map(|(pod, membership)| inner.report(pod, membership))
            .collect()
    }

    /// Every open connection, with its pod's name and netns cookie.
    pub fn connections(&self) -> Vec<(String, u64, ConnectionStatus)> {
        let enrolled: Vec<(String, u64, Arc<Connections>)> = {
            let inner = self.lock();
            let of_member = |(pod, membership): &(Pod, Membership)| {
                let enrolment = inner.enrolment(membership)?;
                let connections = Arc::clone(&enrolment.connections);
                Some((pod.name.clone(), enrolment.netns.cookie(), connections))
            };
            inner.members.iter().filter_map(of_member).collect()
        };
        enrolled
            .into_iter()
            .flat_map(|(name, cookie, connections)| {
                let open = connections.list().into_iter();
                open.map(move |open| (name.clone(), cookie, open))
            })
            .collect()
    }

    /// Name of the enrolled pod with this network namespace.
    pub fn name_of(&self, netns_cookie: u64) -> Option<String> {
        let inner = self.lock();
        inner
            .members
            .iter()
            .find(|(_, membership)| {
                inner
                    .enrolment(membership)
                    .is_some_and(|enrolment| enrolment.netns.cookie() == netns_cookie)
            })
            .map(|(pod, _)| pod.name.clone())
    }

    /// Stops capturing, waits for the open connections as long as the drain time-out says, resets
    /// those that are left and un-enrols every pod.
    pub async fn drain(&self) {
        let connections: Vec<Arc<Connections>> = {
            let inner = self.lock();
            for enrolment in inner.enrolled.values() {
                if let Err(error) = enrolment.stop_capturing(&self.maps) {
                    tracing::error!("{error}");
                }
            }
            inner
                .enrolled
                .values()
                .map(|enrolment| Arc::clone(&enrolment.connections))
                .collect()
        };
        let open: usize = connections
            .iter()
            .map(|connections| connections.open())
            .sum();
        if open > 0 {
            tracing::info!(
                "draining: {open} connections open, waiting up to {:?}",
                self.drain_timeout
            );
        }
        let all = async {
            for connections in &connections {
                connections.drained().await;
            }
        };
        let _timed_out = tokio::time::timeout(self.drain_timeout, all).await;
        let removed: Vec<Enrolment> = {
            let mut inner = self.lock();
            inner.members.clear();
            inner
                .enrolled
                .drain()
                .map(|(_, enrolment)| enrolment)
                .collect()
        };
        for enrolment in removed {
            if let Err(error) = enrolment.remove(&self.maps) {
                tracing::error!("{error}");
            }
        }
        let left: usize = connections
            .iter()
            .map(|connections| connections.open())
            .sum();
        if left > 0 {
            tracing::warn!("{left} connections did not end in time; resetting them");
            for connections in &connections {
                connections.abort();
            }
            for connections in &connections {
                connections.drained().await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, pods: &[Pod], on_failure: OnFailure) -> Result<(), PodError> {
        let mut inner = self.lock();
        let mut taken: HashMap<NetnsIdentity, String> = HashMap::new();
        let mut staged = Vec::with_capacity(pods.len());
        for pod in pods {
            let outcome = match inner.stage(pod, &mut taken, &self.maps) {
                Ok(outcome) => outcome,
                Err(error) if error.is_missing() => {
                    Outcome::Not(Membership::Waiting(error.to_string()))
                }
                Err(error) if on_failure == OnFailure::Report => {
                    Outcome::Not(Membership::Failed(error.to_string()))
                }
                Err(error) => return Err(error),
            };
            staged.push(Staged {
                pod: pod.clone(),
                outcome,
            });
        }
        self.commit(&mut inner, staged)
    }

    /// From here on only the kernel half itself can fail.
    fn commit(&self, inner: &mut Inner, staged: Vec<Staged>) -> Result<(), PodError> {
        let before = std::mem::take(&mut inner.members);
        for Staged { pod, outcome } in staged {
            let membership = match outcome {
                Outcome::Unchanged(identity) => Membership::Enrolled(identity),
                Outcome::Not(membership) => membership,
                Outcome::Known(identity, ready) => {
                    if let Some(enrolment) = inner.enrolled.get_mut(&identity) {
                        enrolment.update(&pod, ready, self.exclusions_id(), &self.maps)?;
                    }
                    Membership::Enrolled(identity)
                }
                Outcome::New(netns, ready) => {
                    let identity = netns.identity();
                    let enrolment = Enrolment::new(
                        &pod,
                        Arc::new(netns),
                        ready,
                        self.exclusions_id(),
                        &self.maps,
                    )?;
                    inner.enrolled.insert(identity, enrolment);
                    Membership::Enrolled(identity)
                }
            };
            log_change(&pod, &membership, &before);
            inner.members.push((pod, membership));
        }
        self.remove_unused(inner);
        Ok(())
    }

    fn remove_unused(&self, inner: &mut Inner) {
        let used: HashSet<NetnsIdentity> = inner
            .members
            .iter()
            .filter_map(|(_, membership)| match membership {
                Membership::Enrolled(identity) => Some(*identity),
                _ => None,
            })
            .collect();
        let unused: Vec<NetnsIdentity> = inner
            .enrolled
            .keys()
            .filter(|identity| !used.contains(identity))
            .copied()
            .collect();
        for identity in unused {
            let Some(enrolment) = inner.enrolled.remove(&identity) else {
                continue;
            };
            let path = enrolment.netns.path().to_path_buf();
            match enrolment.remove(&self.maps) {
                Ok(connections) => {
                    tracing::info!("un-enrolled the pod at {}", path.display());
                    tokio::spawn(drain_then_abort(connections, self.drain_timeout));
                }
                Err(error) => {
                    tracing::error!("un-enrolling the pod at {}: {error}", path.display());
                }
            }
        }
    }

    fn exclusions_id(&self) -> u32 {
        self.next_exclusions_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl Inner {
    fn enrolment(&self, membership: &Membership) -> Option<&Enrolment> {
        match membership {
            Membership::Enrolled(identity) => self.enrolled.get(identity),
            _ => None,
        }
    }

    fn stage(
        &self,
        pod: &Pod,
        taken: &mut HashMap<NetnsIdentity, String>,
        maps: &Maps,
    ) -> Result<Outcome, PodError> {
        let found = match NetnsIdentity::of_path(&pod.netns)
            .and_then(|identity| self.enrolled.get_key_value(&identity))
        {
            Some((&identity, enrolment)) => Found::Enrolled(identity, enrolment),
            None => Found::New(Netns::open(&pod.netns).map_err(|source| PodError::Netns {
                pod: pod.name.clone(),
                source,
            })?),
        };
        if let Some(other) = taken.insert(found.identity(), pod.name.clone()) {
            return Err(PodError::SameNetns {
                pod: pod.name.clone(),
                path: pod.netns.clone(),
                other,
            });
        }
        match found {
            Found::Enrolled(identity, enrolment) if enrolment.is(pod) => {
                Ok(Outcome::Unchanged(identity))
            }
            Found::Enrolled(identity, enrolment) => {
                Ready::new(pod, &enrolment.netns, enrolment.listens(), maps)
                    .map(|ready| Outcome::Known(identity, ready))
            }
            Found::New(netns) => {
                let ready = Ready::new(pod, &netns, false, maps)?;
                Ok(Outcome::New(netns, ready))
            }
        }
    }

    fn report(&self, pod: &Pod, membership: &Membership) -> PodReport {
        let (state, reason) = match membership {
            Membership::Enrolled(_) => (PodState::Enrolled, None),
            Membership::Waiting(reason) => (PodState::Waiting, Some(reason.clone())),
            Membership::Failed(reason) => (PodState::Failed, Some(reason.clone())),
        };
        let enrolment = self.enrolment(membership);
        let connections = enrolment.map(|enrolment| &enrolment.connections);
        PodReport {
            spec: pod.clone(),
            state,
            reason,
            netns_cookie: enrolment.map(|enrolment| enrolment.netns.cookie()),
            connections_open: connections.map_or(0, |open| open.open()),
            connections_total: connections.map_or(0, |open| open.total()),
            connections_failed: connections.map_or(0, |open| open.failed()),
        }
    }
}

/// One line per change of state, not one per look.
fn log_change(pod: &Pod, membership: &Membership, before: &[(Pod, Membership)]) {
    let unchanged = before
        .iter()
        .any(|(old, state)| old.name == pod.name && state == membership);
    if unchanged {
        return;
    }
    match membership {
        Membership::Enrolled(_) => tracing::info!("enrolled pod {}", pod.name),
        Membership::Waiting(reason) => tracing::info!("waiting for {reason}"),
        Membership::Failed(reason) => tracing::error!("not enrolled: {reason}"),
    }
}

/// A pod that is gone has nobody left to end its connections, and they keep its namespace alive.
async fn drain_then_abort(connections: Arc<Connections>, timeout: Duration) {
    if tokio::time::timeout(timeout, connections.drained())
        .await
        .is_err()
    {
        connections.abort();
    }
}
