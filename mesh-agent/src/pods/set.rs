//! The pods of the configuration, and keeping what is enrolled in step with what exists.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use super::{
    PodError, PodReport,
    change::{Enrolled, OnFailure},
    enrolment::Enrolment,
    kernel_pod::captures_inbound,
    member::Member,
    serving,
};
use crate::{
    config::{Agent, Config, Pod},
    kernel::Maps,
    latency::{Book, Rate, Sampler},
    proxy::{
        ConnectionStatus, Connections, DNS_DESTINATION, Destination, Destinations,
        DetectionCounters, HealthChecks, Hosts, Shared, SharedRates,
    },
    telemetry::Telemetry,
};

/// Every configured pod.
#[derive(Debug)]
pub struct PodSet {
    pub(super) maps: Arc<Maps>,
    /// Where maps and links are pinned.
    pub(super) pin_path: PathBuf,
    /// How long the connections of a pod that was removed may go on.
    pub(super) drain_timeout: Duration,
    /// How long nothing may come either way before a flow of datagrams ends.
    pub(super) datagram_idle: Duration,
    pub(super) next_exclusions_id: AtomicU32,
    /// What the pods' proxies have in common.
    pub(super) shared: Shared,
    /// Locked as long as a change takes.
    enrolled: Mutex<Enrolled>,
    /// In the configuration's order. Never locked for long: this is what can be told meanwhile.
    members: Arc<Mutex<Arc<[Member]>>>,
    /// Of the destinations' servers.
    checks: Mutex<HealthChecks>,
}

impl PodSet {
    /// An empty set.
    pub fn new(
        maps: Arc<Maps>,
        agent: &Agent,
        telemetry: Arc<Telemetry>,
        shared_rates: Option<Arc<SharedRates>>,
    ) -> Self {
        Self {
            maps,
            pin_path: agent.pin_path.clone(),
            drain_timeout: agent.drain_timeout.into(),
            datagram_idle: agent.udp_idle_timeout.into(),
            next_exclusions_id: AtomicU32::new(1),
            shared: Shared {
                telemetry,
                shared_rates,
                ..Shared::default()
            },
            enrolled: Mutex::default(),
            members: Arc::default(),
            checks: Mutex::default(),
        }
    }

    /// Makes the pods, names and destinations of `config` those that are served, whole or not at all: a
    /// pod that exists but cannot be enrolled fails the whole change. Those that do not exist yet are
    /// waited for.
    pub fn apply(&self, config: &Config) -> Result<(), PodError> {
        let pods: Vec<Arc<Pod>> = config.pods.iter().cloned().map(Arc::new).collect();
        // First: pods begin to be served at once.
        let latency = &self.shared.latency;
        let before = (latency.rate(), latency.tells_clients());
        let rate = Rate {
            share: config.latency.sample,
            most_per_second: config.latency.most_per_second,
        };
        latency.apply(rate, config.latency.server_timing);
        self.change(&pods, OnFailure::Abandon)
            .inspect_err(|_| latency.apply(before.0, before.1))?;
        self.shared.hosts.set(Hosts::of(&config.destinations));
        self.shared.destinations.apply(config);
        let members = Arc::clone(&self.members);
        let any_pod = move || {
            let members = members.lock().unwrap_or_else(PoisonError::into_inner);
            members.iter().find_map(Member::proxy)
        };
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) =
            HealthChecks::start(&self.destinations(), &any_pod);
        Ok(())
    }

    /// The names of the configuration.
    pub fn hosts(&self) -> Arc<Hosts> {
        self.shared.hosts.get()
    }

    /// The destinations of the configuration.
    pub fn destinations(&self) -> Arc<Destinations> {
        self.shared.destinations.get()
    }

    /// What is remembered of measured requests.
    pub fn latency(&self) -> &Book {
        &self.shared.latency
    }

    /// Where requests are told of.
    pub fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    /// What was found out about connections.
    pub fn detection(&self) -> Arc<DetectionCounters> {
        Arc::clone(&self.shared.detection)
    }

    /// Looks which pods came and went, and whether those that are there can still be redirected.
    pub fn reconcile(&self) {
        let pods: Vec<Arc<Pod>> = self
            .members()
            .iter()
            .map(|member| Arc::clone(&member.pod))
            .collect();
        if let Err(error) = self.change(&pods, OnFailure::Report) {
            tracing::error!("{error}");
        }
        let now = std::time::Instant::now();
        self.destinations().sweep(now);
        self.latency().sweep(now);
        if !self.latency().is_awaited() {
            // Who waited has gone.
            self.each_sampler(|_, _, sampler| sampler.unwant());
        }
        if pods.iter().any(|pod| captures_inbound(pod)) {
            self.maps.prune_servers();
        }
        self.maps.prune_pod_sockets();
    }

    /// Exclusion ids from `first` on are used; those below belong to an earlier run.
    pub fn start_exclusions_at(&self, first: u32) {
        self.next_exclusions_id.store(first, Ordering::Relaxed);
    }

    /// Cookies of the enrolled pods.
    pub fn cookies(&self) -> HashSet<u64> {
        self.members().iter().filter_map(Member::cookie).collect()
    }

    /// Every pod, in the configuration's order.
    pub fn report(&self) -> Vec<PodReport> {
        self.members().iter().map(Member::report).collect()
    }

    /// Every open connection, with its pod's name and netns cookie.
    pub fn connections(&self) -> Vec<(String, u64, ConnectionStatus)> {
        let members = self.members();
        let of_member = |member: &Member| {
            let name = member.pod.name.clone();
            let cookie = member.cookie().unwrap_or_default();
            let open = member.connections().into_iter();
            open.map(move |open| (name.clone(), cookie, open))
        };
        members.iter().flat_map(of_member).collect()
    }

    /// The servers in pods whose requests came through the agent.
    pub fn servers(&self) -> Vec<Arc<Destination>> {
        self.members().iter().flat_map(Member::servers).collect()
    }

    /// The next `count` requests to a destination are measured, or to all of them; of DNS queries those of `pod` only, if
    /// it is given.
    pub fn measure_next(&self, pod: Option<&str>, destination: Option<&str>, count: u32) {
        self.each_sampler(|asks, name, sampler| {
            let is_of_pod = asks.is_none_or(|asks| pod.is_none_or(|pod| pod == asks));
            if is_of_pod && destination.is_none_or(|destination| destination == name) {
                sampler.want(count);
            }
        });
    }

    /// What decides which requests are measured: whose they are, if they are of one pod only, and where they go.
    fn each_sampler(&self, mut each: impl FnMut(Option<&str>, &str, &Sampler)) {
        let destinations = self.destinations().list().into_iter();
        for destination in destinations.chain(self.servers()) {
            each(None, &destination.name, &destination.sampler);
        }
        for member in self.members().iter() {
            if let Some(proxy) = member.proxy() {
                each(
                    Some(&member.pod.name),
                    DNS_DESTINATION,
                    proxy.resolver.sampler(),
                );
            }
        }
    }

    /// Name of the enrolled pod with this network namespace.
    pub fn name_of(&self, netns_cookie: u64) -> Option<String> {
        self.members()
            .iter()
            .find(|member| member.cookie() == Some(netns_cookie))
            .map(|member| member.pod.name.clone())
    }

    /// Stops capturing, waits for the open connections as long as the drain time-out says, resets
    /// those that are left and un-enrols every pod.
    pub async fn drain(&self) {
        let deadline = Instant::now() + self.drain_timeout;
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = HealthChecks::default();
        let (connections, listening) = self.stop_capturing();
        for connections in &connections {
            connections.finish();
        }
        for tasks in listening {
            serving::ended(tasks).await;
        }
        let open = count_open(&connections);
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
        let _timed_out = tokio::time::timeout_at(deadline, all).await;
        self.set_members(Vec::new());
        let removed: Vec<Enrolment> = self
            .lock_enrolled()
            .drain()
            .map(|(_, enrolment)| enrolment)
            .collect();
        for enrolment in removed {
            if let Err(error) = enrolment.remove(&self.maps) {
                tracing::error!("{error}");
            }
        }
        let left = count_open(&connections);
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

    /// Connections may be queued when the kernel half stops: the listeners accept those and end.
    fn stop_capturing(&self) -> (Vec<Arc<Connections>>, Vec<JoinSet<()>>) {
        let mut enrolled = self.lock_enrolled();
        for enrolment in enrolled.values() {
            if let Err(error) = enrolment.stop_capturing(&self.maps) {
                tracing::error!("{error}");
            }
        }
        enrolled
            .values_mut()
            .map(|enrolment| {
                (
                    Arc::clone(&enrolment.proxy.connections),
                    enrolment.stop_listening(),
                )
            })
            .unzip()
    }

    pub(super) fn lock_enrolled(&self) -> MutexGuard<'_, Enrolled> {
        self.enrolled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn members(&self) -> Arc<[Member]> {
        Arc::clone(&self.members.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_members(&self, members: Vec<Member>) {
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = members.into();
    }
}

fn count_open(connections: &[Arc<Connections>]) -> usize {
    connections
        .iter()
        .map(|connections| connections.open())
        .sum()
}
