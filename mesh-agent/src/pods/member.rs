//! What can be told of a configured pod.

use std::{net::SocketAddr, sync::Arc};

use super::{NetnsIdentity, enrolment::Enrolment, kernel_pod::captures_inbound};
use crate::{
    config::Pod,
    proxy::{
        ConnectionStatus, DatagramStatus, Destination, DnsStatus, OverloadStatus, PodProxy,
        TrafficList,
    },
};

/// State of a pod, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodState {
    /// Its traffic is captured.
    Enrolled,
    /// Its network namespace does not exist, or its loopback interface cannot be used (yet).
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
    /// Cookie of its network namespace, if the kernel half knows it.
    pub netns_cookie: Option<u64>,
    /// How many connections are open through the agent.
    pub connections_open: usize,
    /// Connections through the agent since it was enrolled.
    pub connections_total: u64,
    /// Those of them whose server could not be reached.
    pub connections_failed: u64,
    /// Where its servers listen whose connections are captured.
    pub servers: Vec<SocketAddr>,
    /// What became of its requests, by destination.
    pub traffic: TrafficList,
    /// What became of its DNS queries, if they are captured.
    pub dns: Option<DnsStatus>,
    /// What became of its other datagrams, if any are captured.
    pub datagrams: Option<DatagramStatus>,
    /// What its servers work on, where that is limited.
    pub overload: Option<OverloadStatus>,
}

/// A pod of the configuration, as it was found on the last look.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub pod: Arc<Pod>,
    pub state: PodState,
    pub reason: Option<String>,
    pub known: Option<Known>,
}

/// A pod that the kernel half knows, even if it cannot be redirected at the moment.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub identity: NetnsIdentity,
    pub cookie: u64,
    proxy: Arc<PodProxy>,
}

impl Known {
    pub fn of(enrolment: &Enrolment) -> Self {
        Self {
            identity: enrolment.netns.identity(),
            cookie: enrolment.netns.cookie(),
            proxy: Arc::clone(&enrolment.proxy),
        }
    }
}

impl Member {
    pub fn report(&self) -> PodReport {
        let connections = self.known.as_ref().map(|known| &known.proxy.connections);
        PodReport {
            spec: (*self.pod).clone(),
            state: self.state,
            reason: self.reason.clone(),
            netns_cookie: self.cookie(),
            connections_open: connections.map_or(0, |open| open.open()),
            connections_total: connections.map_or(0, |open| open.total()),
            connections_failed: connections.map_or(0, |open| open.failed()),
            datagrams: self
                .known
                .as_ref()
                .filter(|_| !self.pod.capture.udp_ports.is_empty())
                .map(|known| known.proxy.datagrams.status()),
            overload: self
                .known
                .as_ref()
                .and_then(|known| known.proxy.servers.overload())
                .map(|overload| overload.status()),
            servers: self
                .known
                .as_ref()
                .filter(|_| captures_inbound(&self.pod))
                .map(|known| known.proxy.maps.servers(known.cookie))
                .unwrap_or_default(),
            traffic: self
                .known
                .as_ref()
                .map(|known| known.proxy.traffic.list())
                .unwrap_or_default(),
            dns: self
                .known
                .as_ref()
                .filter(|_| self.pod.capture.dns)
                .map(|known| known.proxy.resolver.counters().status()),
        }
    }

    /// Its open connections.
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        self.known
            .as_ref()
            .map(|known| known.proxy.connections.list())
            .unwrap_or_default()
    }

    /// Its proxy, if it is enrolled.
    pub fn proxy(&self) -> Option<Arc<PodProxy>> {
        self.known.as_ref().map(|known| Arc::clone(&known.proxy))
    }

    /// Its servers whose requests came through the agent.
    pub fn servers(&self) -> Vec<Arc<Destination>> {
        self.known
            .as_ref()
            .map(|known| known.proxy.servers.list())
            .unwrap_or_default()
    }

    pub fn cookie(&self) -> Option<u64> {
        self.known.as_ref().map(|known| known.cookie)
    }

    /// One line per change of state, not one per look.
    pub fn log_change(&self, before: &[Self]) {
        let same = |old: &Self| {
            old.pod.name == self.pod.name
                && old.state == self.state
                && old.reason == self.reason
                && old.known.as_ref().map(|known| known.identity)
                    == self.known.as_ref().map(|known| known.identity)
        };
        if before.iter().any(same) {
            return;
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.state {
            PodState::Enrolled => tracing::info!("enrolled pod {}", self.pod.name),
            PodState::Waiting => tracing::info!("waiting for {reason}"),
            PodState::Failed => tracing::error!("not enrolled: {reason}"),
        }
    }
}
