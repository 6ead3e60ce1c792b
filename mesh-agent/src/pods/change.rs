//! Changing what is enrolled: everything that can fail first, and taken back if it does.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh_common::Pod as KernelPod;
use tokio::task::JoinSet;

use super::{
    Netns, NetnsIdentity, PodError, PodSet, PodState,
    enrolment::{Enrolment, Ready, kernel_error},
    member::{Known, Member},
    serving,
};
use crate::{config::Pod, kernel::Maps, proxy::Connections};

/// The enrolled pods.
pub(super) type Enrolled = HashMap<NetnsIdentity, Enrolment>;

/// What to do with pods that exist but cannot be enrolled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// Change nothing.
    Abandon,
    /// Leave that pod out, and say so.
    Report,
}

/// What becomes of a pod.
enum Outcome {
    /// Enrolled already, just so; perhaps it cannot be redirected at the moment.
    Same(NetnsIdentity, Result<(), PodError>),
    /// To be enrolled, or enrolled differently.
    Enrol(Box<Ready>),
    /// Not enrolled.
    Not(PodError),
}

impl PodSet {
    pub(super) fn change(&self, pods: &[Arc<Pod>], on_failure: OnFailure) -> Result<(), PodError> {
        let mut enrolled = self.lock_enrolled();
        let mut taken = HashMap::new();
        let mut outcomes = Vec::with_capacity(pods.len());
        for pod in pods {
            outcomes.push(match self.stage(pod, &mut enrolled, &mut taken) {
                Ok(outcome) => outcome,
                Err(error) if on_failure == OnFailure::Report || error.is_not_there_yet() => {
                    Outcome::Not(error)
                }
                Err(error) => return Err(error),
            });
        }
        self.tell_kernel(&mut outcomes, &enrolled, on_failure)?;
        self.commit(pods, outcomes, &mut enrolled);
        Ok(())
    }

    /// Opens everything that a pod needs. On a failure nothing of it is left.
    fn stage(
        &self,
        pod: &Arc<Pod>,
        enrolled: &mut Enrolled,
        taken: &mut HashMap<NetnsIdentity, String>,
    ) -> Result<Outcome, PodError> {
        let known = NetnsIdentity::of_path(&pod.netns).and_then(|found| enrolled.get(&found));
        let netns = match known {
            Some(enrolment) => Arc::clone(&enrolment.netns),
            None => Netns::open(&pod.netns)
                .map(Arc::new)
                .map_err(|source| PodError::Netns {
                    pod: pod.name.clone(),
                    source,
                })?,
        };
        let identity = netns.identity();
        if let Some(other) = taken.insert(identity, pod.name.clone()) {
            return Err(PodError::SameNetns {
                pod: pod.name.clone(),
                path: pod.netns.clone(),
                other,
            });
        }
        match enrolled.get_mut(&identity) {
            Some(enrolment) if enrolment.is(pod) => {
                Ok(Outcome::Same(identity, enrolment.look(&self.maps)))
            }
            enrolment => {
                let id = self.next_exclusions_id.fetch_add(1, Ordering::Relaxed);
                Ready::new(
                    pod,
                    netns,
                    enrolment.as_deref(),
                    id,
                    &self.maps,
                    &self.pin_path,
                )
                .map(|ready| Outcome::Enrol(Box::new(ready)))
            }
        }
    }

    /// Writes the pods' entries, whole or not at all. Their listeners queue connections already.
    fn tell_kernel(
        &self,
        outcomes: &mut [Outcome],
        enrolled: &Enrolled,
        on_failure: OnFailure,
    ) -> Result<(), PodError> {
        let mut before: Vec<(u64, Option<KernelPod>)> = Vec::new();
        for outcome in outcomes {
            let Outcome::Enrol(ready) = outcome else {
                continue;
            };
            let cookie = ready.netns.cookie();
            match self.maps.set_pod(cookie, &ready.kernel) {
                Ok(()) => before.push((
                    cookie,
                    enrolled.get(&ready.netns.identity()).map(Enrolment::entry),
                )),
                Err(source) => {
                    let error = kernel_error(&ready.pod, source);
                    if on_failure == OnFailure::Abandon {
                        take_back(&self.maps, &before);
                        return Err(error);
                    }
                    *outcome = Outcome::Not(error);
                }
            }
        }
        Ok(())
    }

    /// From here on nothing can fail.
    fn commit(&self, pods: &[Arc<Pod>], outcomes: Vec<Outcome>, enrolled: &mut Enrolled) {
        let before = self.members();
        let mut members = Vec::with_capacity(pods.len());
        for (pod, outcome) in pods.iter().zip(outcomes) {
            let (identity, looked) = match outcome {
                Outcome::Same(identity, looked) => (Some(identity), looked),
                Outcome::Not(error) => (None, Err(error)),
                Outcome::Enrol(ready) => {
                    let identity = ready.netns.identity();
                    if let Some(enrolment) = enrolled.get_mut(&identity) {
                        enrolment.update(*ready);
                    } else {
                        enrolled.insert(
                            identity,
                            Enrolment::new(*ready, &self.maps, &self.shared, self.datagram_idle),
                        );
                    }
                    (Some(identity), Ok(()))
                }
            };
            let member = Member {
                pod: Arc::clone(pod),
                state: match &looked {
                    Ok(()) => PodState::Enrolled,
                    Err(error) if error.is_not_there_yet() => PodState::Waiting,
                    Err(_) => PodState::Failed,
                },
                reason: looked.err().map(|error| error.to_string()),
                known: identity
                    .and_then(|identity| enrolled.get(&identity))
                    .map(Known::of),
            };
            member.log_change(&before);
            members.push(member);
        }
        let used: HashSet<NetnsIdentity> = members
            .iter()
            .filter_map(|member| member.known.as_ref().map(|known| known.identity))
            .collect();
        self.set_members(members);
        for (_, enrolment) in enrolled.extract_if(|identity, _| !used.contains(identity)) {
            self.remove(enrolment);
        }
    }

    fn remove(&self, enrolment: Enrolment) {
        let path = enrolment.netns.path().to_path_buf();
        match enrolment.remove(&self.maps) {
            Ok((listening, connections)) => {
                tracing::info!("un-enrolled the pod at {}", path.display());
                tokio::spawn(leave(listening, connections, self.drain_timeout));
            }
            Err(error) => tracing::error!("un-enrolling the pod at {}: {error}", path.display()),
        }
    }
}

/// Gives the kernel half the entries that it had before.
fn take_back(maps: &Maps, before: &[(u64, Option<KernelPod>)]) {
    for (cookie, entry) in before.iter().rev() {
        let taken_back = match entry {
            Some(entry) => maps.set_pod(*cookie, entry),
            None => maps.remove_pod(*cookie),
        };
        if let Err(error) = taken_back {
            tracing::error!("{error}");
        }
    }
}

/// A pod that is gone has nobody left to end its connections, and they keep its namespace alive.
async fn leave(listening: JoinSet<()>, connections: Arc<Connections>, timeout: Duration) {
    connections.finish();
    serving::ended(listening).await;
    if tokio::time::timeout(timeout, connections.drained())
        .await
        .is_err()
    {
        connections.abort();
    }
}
