//! What the admin socket answers, as JSON.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::pod_sockets::Measured;
use crate::{
    config::Protocol,
    pods::PodState,
    policy::detection::Spoken,
    proxy::{DatagramStatus, Direction, DnsStatus},
};

/// Answer to `/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the running agent.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Whether every pod that exists is enrolled.
    pub ready: bool,
    /// Since its start.
    pub uptime_seconds: f64,
    /// The cgroup whose sockets are seen.
    pub cgroup: PathBuf,
    /// Where maps and links are pinned.
    pub pin_path: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// Why the file on disk is not what is applied, if it is not.
    pub config_error: Option<String>,
    /// How many pods.
    pub pods: PodCounts,
    /// How many connections.
    pub connections: ConnectionCounts,
    /// How many file descriptors.
    pub descriptors: DescriptorCounts,
    /// What is measured of pods' own sockets.
    pub pod_sockets: Option<Measured>,
    /// The kernel half's counters by name.
    pub counters: BTreeMap<String, u64>,
    /// What each counter counts.
    pub counter_help: Vec<CounterHelp>,
}

/// What a counter counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CounterHelp {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub help: String,
}

/// How many pods.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PodCounts {
    /// In the configuration.
    pub configured: usize,
    /// Of those, captured.
    pub enrolled: usize,
}

/// How many connections.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Now.
    pub open: usize,
    /// Since their pods were enrolled.
    pub total: u64,
    /// Of those, whose server could not be reached.
    pub failed: u64,
}

/// How many file descriptors.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DescriptorCounts {
    /// Now.
    pub open: usize,
    /// At most.
    pub limit: u64,
}

/// Element of the answer to `/pods`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// Whether its traffic is captured.
    pub state: PodState,
    /// Why not.
    pub reason: Option<String>,
    /// How the kernel half knows it.
    pub netns_cookie: Option<u64>,
    /// `agent`, or where its own proxy listens.
    pub proxy: String,
    /// `open` or `closed`.
    pub on_agent_down: String,
    /// Connections through the agent now.
    pub connections: usize,
    /// Connections through the agent since it was enrolled.
    pub connections_total: u64,
    /// Of those, whose server could not be reached.
    pub connections_failed: u64,
    /// Where its servers listen whose connections are captured.
    pub servers: Vec<SocketAddr>,
    /// What became of its DNS queries, if they are captured.
    pub dns: Option<DnsStatus>,
    /// What became of its other datagrams, if any are captured.
    pub datagrams: Option<DatagramStatus>,
    /// What its servers work on, where that is limited.
    pub overload: Option<Overload>,
}

/// What the servers of a pod work on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overload {
    /// Requests that are worked on.
    pub active: u32,
    /// How many may be.
    pub most: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// Up to which priority requests are let in, if not all are.
    pub admits_up_to: Option<String>,
}

/// Element of the answer to `/connections`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Name of the pod.
    pub pod: String,
    /// Which way it goes, seen from the pod.
    pub direction: Direction,
    /// The client's end.
    pub client: SocketAddr,
    /// Where the client wanted to go.
    pub original_destination: SocketAddr,
    /// Outbound: the loopback address that stands for it. Inbound: where the server really listens.
    pub via: SocketAddr,
    /// The process that called connect, if it is the pod's.
    pub process: Option<u32>,
    /// What the client speaks, where the agent looks.
    pub protocol: Option<Spoken>,
    /// With TLS: the server that the client names.
    pub server_name: Option<String>,
    /// Since connect.
    pub age_seconds: f64,
    /// From the client to the server.
    pub bytes_sent: u64,
    /// From the server to the client.
    pub bytes_received: u64,
}

/// Element of the answer to `/destinations`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Its name, or its address if it is not in the file.
    pub name: String,
    /// What is spoken there: as configured.
    pub protocol: Protocol,
    /// Requests under way.
    pub active: u32,
    /// Requests answered, by class: `2xx` and so on.
    pub answered: BTreeMap<String, u64>,
    /// Further tries.
    pub retries: u64,
    /// Of those, that did not wait for another to fail.
    pub hedges: u64,
    /// Of those, whose answer was the one that the client got.
    pub hedges_won: u64,
    /// Further tries that the budget did not allow.
    pub retries_over_budget: u64,
    /// Answers that the agent made itself, by reason.
    pub own_answers: BTreeMap<String, u64>,
    /// Requests that it would have refused, but for `mode: observe`, by reason.
    pub would_refuse: BTreeMap<String, u64>,
    /// Answers that stood for a refusal or a failure.
    pub degraded: u64,
    /// Its breaker, if it has one.
    pub breaker: Option<Breaker>,
    /// The share of the requests that is refused because others failed, if that is configured.
    pub throttled: Option<f64>,
    /// Its limits, as far as there are any.
    pub limits: Limits,
    /// What was seen of it since it is known.
    pub seen: Seen,
    /// Its servers.
    pub endpoints: Vec<Endpoint>,
}

/// The breaker of a destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// `closed`, `open` or `half-open`.
    pub state: String,
    /// Whether it only observes.
    pub observes: bool,
    /// Calls that count now.
    pub calls: u32,
    /// Of those, that failed.
    pub failed: u32,
    /// Of those, that were slow.
    pub slow: u32,
    /// Failures in a row.
    pub consecutive: u32,
    /// Why it opened last.
    pub why: Option<String>,
    /// When that was.
    pub opened_seconds_ago: Option<f64>,
    /// How often it opened.
    pub trips: u32,
    /// When it lets a request through again, to see.
    pub probe_in_seconds: Option<f64>,
}

/// What was seen of a destination.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// For how long.
    pub seconds: f64,
    /// Requests that were under way at once, at most.
    pub most_active: u32,
    /// What so many of the answers took until they began, in seconds; `None` without any.
    pub times: Option<Times>,
}

/// What answers took until they began, in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Times {
    /// Half of them, at most.
    pub p50: f64,
    /// 99%.
    pub p99: f64,
    /// 99.9%.
    pub p999: f64,
}

/// What is in use of the limits of a destination.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Requests under way at most; what an adaptive limit is now.
    pub requests: Option<u32>,
    /// Connections in use.
    pub connections: Option<InUse>,
}

/// What is in use of a limit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InUse {
    /// Now.
    pub used: u32,
    /// At most.
    pub most: u32,
    /// Requests that wait for one.
    pub waiting: u32,
}

impl Destination {
    /// Adds what became of `other`, another part of it.
    pub(super) fn add(&mut self, other: Self) {
        self.active += other.active;
        self.retries += other.retries;
        self.hedges += other.hedges;
        self.hedges_won += other.hedges_won;
        self.retries_over_budget += other.retries_over_budget;
        self.degraded += other.degraded;
        // Each address has its own: the one that is worst off is what there is to see.
        let trouble =
            |breaker: &Option<Breaker>| breaker.as_ref().map(|it| (it.state != "closed", it.trips));
        if trouble(&other.breaker) > trouble(&self.breaker) {
            self.breaker = other.breaker;
        }
        for (mine, others) in [
            (&mut self.answered, other.answered),
            (&mut self.own_answers, other.own_answers),
            (&mut self.would_refuse, other.would_refuse),
        ] {
            for (key, count) in others {
                *mine.entry(key).or_default() += count;
            }
        }
        self.endpoints.extend(other.endpoints);
    }
}

/// A server of a destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Tries sent there, and connections of other protocols.
    pub tries: u64,
    /// Of those, that failed.
    pub failed: u64,
    /// Under way now.
    pub active: u32,
    /// Whether health checks say that it is down.
    pub is_down: bool,
    /// For how long it is still out of rotation.
    pub ejected_for_seconds: Option<f64>,
}

impl fmt::Display for PodState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Enrolled => "enrolled",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        })
    }
}
