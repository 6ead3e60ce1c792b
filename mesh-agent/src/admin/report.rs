//! Puts together what the agent tells.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use nix::sys::resource::{Resource, getrlimit};

use super::{
    latency::{self, Latency},
    model::{
        Breaker, Connection, ConnectionCounts, CounterHelp, DescriptorCounts, Destination,
        Endpoint, InUse, Limits, Overload, Pod, PodCounts, Seen, Status, Times,
    },
    pod_sockets::Measured,
};
use crate::{
    config::{Mode, OnAgentDown, Proxy},
    kernel::{Maps, MeasuredSockets},
    pods::{PodReport, PodSet, PodState},
    policy::breaker::{State, View},
    proxy::{self, Reason},
};

/// The running agent, as far as others may ask.
#[derive(Debug)]
pub struct Report {
    /// Its pods.
    pub pods: Arc<PodSet>,
    /// Its maps.
    pub maps: Arc<Maps>,
    /// The cgroup whose sockets are seen.
    pub cgroup: PathBuf,
    /// Where maps and links are pinned.
    pub pin_path: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// When it started.
    pub started: Instant,
    /// Why the file on disk is not what is applied.
    pub config_error: Mutex<Option<String>>,
    /// Whether the programs are attached and it is not draining.
    pub capturing: AtomicBool,
    /// What is measured of pods' own sockets, once that is known.
    pub pod_sockets: OnceLock<MeasuredSockets>,
}

impl Report {
    /// Whether every pod that exists is enrolled.
    pub fn ready(&self) -> bool {
        self.is_ready(&self.pods.report())
    }

    fn is_ready(&self, pods: &[PodReport]) -> bool {
        self.capturing.load(Ordering::Relaxed)
            && pods.iter().all(|pod| pod.state != PodState::Failed)
    }

    /// Answer to `/status`.
    pub fn status(&self) -> Status {
        let pods = self.pods.report();
        let counters = self.maps.counters();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            ready: self.is_ready(&pods),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            cgroup: self.cgroup.clone(),
            pin_path: self.pin_path.clone(),
            config: self.config.clone(),
            config_error: self
                .config_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            pods: PodCounts {
                configured: pods.len(),
                enrolled: pods
                    .iter()
                    .filter(|pod| pod.state == PodState::Enrolled)
                    .count(),
            },
            connections: ConnectionCounts {
                open: pods.iter().map(|pod| pod.connections_open).sum(),
                total: pods.iter().map(|pod| pod.connections_total).sum(),
                failed: pods.iter().map(|pod| pod.connections_failed).sum(),
            },
            descriptors: descriptors(),
            pod_sockets: self.pod_sockets.get().map(Measured::from),
            counters: counters
                .iter()
                .map(|&(name, _, value)| (name.into(), value))
                .collect(),
            counter_help: counters
                .iter()
                .map(|&(name, help, _)| CounterHelp {
                    name: name.into(),
                    help: help.into(),
                })
                .collect(),
        }
    }

    /// Answer to `/pods`.
    pub fn pods(&self) -> Vec<Pod> {
        self.pods.report().into_iter().map(pod).collect()
    }

    /// Answer to `/destinations`: those of the file in its order, then others that were
    /// used, then servers in pods.
    pub fn destinations(&self) -> Vec<Destination> {
        let now = Instant::now();
        let mut destinations = self.pods.destinations().list();
        destinations.extend(self.pods.servers());
        one_for_each_name(destinations.iter().map(|it| destination(it, now)))
    }

    /// Answer to `/latency`.
    pub fn latency(&self) -> Latency {
        latency::latency(self.pods.latency())
    }

    /// Answer to `/connections`: what the agent knows of each, and what the kernel half does.
    pub fn connections(&self) -> Vec<Connection> {
        let processes: HashMap<(u64, SocketAddr, SocketAddr), u32> = self
            .maps
            .origins()
            .into_iter()
            .map(|origin| {
                (
                    (origin.netns_cookie, origin.client, origin.proxy),
                    origin.process,
                )
            })
            .collect();
        let mut connections: Vec<Connection> = self
            .pods
            .connections()
            .into_iter()
            .map(|(pod, cookie, open)| Connection {
                pod,
                direction: open.direction,
                client: open.accepted.client,
                original_destination: open.accepted.destination,
                via: open.accepted.proxy,
                process: processes
                    .get(&(cookie, open.accepted.client, open.accepted.proxy))
                    .copied(),
                protocol: open.spoken,
                server_name: open.server_name,
                age_seconds: open.age.as_secs_f64(),
                bytes_sent: open.bytes_sent,
                bytes_received: open.bytes_received,
            })
            .collect();
        connections.sort_by(|left, right| right.age_seconds.total_cmp(&left.age_seconds));
        connections
    }
}

/// A destination without endpoints is one for each of its addresses: together they are what the file
/// says, and no series has its like in the metrics.
fn one_for_each_name(destinations: impl Iterator<Item = Destination>) -> Vec<Destination> {
    let mut places = HashMap::new();
    let mut all: Vec<Destination> = Vec::new();
    for destination in destinations {
        let place = *places.entry(destination.name.clone()).or_insert(all.len());
        match all.get_mut(place) {
            None => all.push(destination),
            Some(known) => known.add(destination),
        }
    }
    all
}

fn destination(destination: &proxy::Destination, now: Instant) -> Destination {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &destination.counters;
    let answered = counters.answered.iter().zip(1..);
    let by_reason = |counters: &[AtomicU64]| {
        let counted = Reason::ALL.iter().zip(counters);
        let counted = counted.map(|(reason, count)| (reason.code().to_owned(), read(count)));
        counted.filter(|(_, count)| *count > 0).collect()
    };
    let protection = &destination.protection;
    let policy = destination.policy.protection.as_deref();
    Destination {
        name: destination.name.to_string(),
        protocol: destination.protocol,
        active: destination.budget.under_way().0,
        answered: answered
            .map(|(count, class)| (format!("{class}xx"), read(count)))
            .collect(),
        retries: read(&counters.retries),
        hedges: read(&counters.hedges),
        hedges_won: read(&counters.hedges_won),
        retries_over_budget: read(&counters.over_budget),
        own_answers: by_reason(&counters.own_answers),
        would_refuse: by_reason(&counters.would_refuse),
        degraded: read(&counters.degraded),
        breaker: policy.and_then(|policy| {
            let view = protection.breaker(policy, now)?;
            let observes = policy.breaker.as_ref()?.mode == Mode::Observe;
            Some(breaker(&view, observes, now))
        }),
        throttled: policy.and_then(|policy| protection.throttled(policy, now)),
        limits: policy
            .map(|policy| limits(protection, policy))
            .unwrap_or_default(),
        seen: seen(destination, now),
        endpoints: destination
            .endpoints
            .iter()
            .map(|endpoint| {
                let (tries, failed) = endpoint.counts();
                Endpoint {
                    address: endpoint.address,
                    tries,
                    failed,
                    active: endpoint.load.pending(),
                    is_down: endpoint.is_down(),
                    ejected_for_seconds: endpoint.out_for(now).map(|left| left.as_secs_f64()),
                }
            })
            .collect(),
    }
}

fn seen(destination: &proxy::Destination, now: Instant) -> Seen {
    let counters = &destination.counters;
    let quantile = |share| Some(counters.times.quantile(share)?.as_secs_f64());
    let times = || {
        Some(Times {
            p50: quantile(0.5)?,
            p99: quantile(0.99)?,
            p999: quantile(0.999)?,
        })
    };
    Seen {
        seconds: now
            .saturating_duration_since(counters.since.0)
            .as_secs_f64(),
        most_active: counters.most_active.load(Ordering::Relaxed),
        times: times(),
    }
}

fn breaker(view: &View, observes: bool, now: Instant) -> Breaker {
    Breaker {
        state: match view.state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half-open",
        }
        .to_owned(),
        observes,
        calls: view.calls,
        failed: view.failed,
        slow: view.slow,
        consecutive: view.consecutive,
        why: view.why.map(|why| why.to_string()),
        opened_seconds_ago: view
            .opened_at
            .map(|at| now.saturating_duration_since(at).as_secs_f64()),
        trips: view.trips,
        probe_in_seconds: view.probe_in.map(|left| left.as_secs_f64()),
    }
}

fn limits(protection: &proxy::Protection, policy: &proxy::ProtectionPolicy) -> Limits {
    let (used, waiting) = protection.connections.counts();
    Limits {
        requests: protection.most(policy),
        connections: policy.connections.map(|limit| InUse {
            used,
            most: limit.most,
            waiting,
        }),
    }
}

fn pod(report: PodReport) -> Pod {
    Pod {
        name: report.spec.name,
        netns: report.spec.netns,
        state: report.state,
        reason: report.reason,
        netns_cookie: report.netns_cookie,
        proxy: match report.spec.proxy {
            Proxy::Agent => "agent".into(),
            Proxy::External { port, .. } => format!("external, port {port}"),
        },
        on_agent_down: match report.spec.on_agent_down {
            OnAgentDown::Open => "open".into(),
            OnAgentDown::Closed => "closed".into(),
        },
        connections: report.connections_open,
        connections_total: report.connections_total,
        connections_failed: report.connections_failed,
        servers: report.servers,
        dns: report.dns,
        datagrams: report.datagrams,
        overload: report.overload.map(|status| Overload {
            active: status.active,
            most: status.most,
            waiting: status.waiting,
            admits_up_to: status.level.map(|level| level.to_string()),
        }),
    }
}

fn descriptors() -> DescriptorCounts {
    DescriptorCounts {
        open: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        limit: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
    }
}
