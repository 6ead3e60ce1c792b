//! What the connections and datagrams of one pod have in common.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use mesh_common::MOST_CAPTURED_PORTS;

use super::{
    Connections, DatagramCounters, DetectionCounters,
    destinations::SharedDestinations,
    dns::{Resolver, SharedHosts},
    http::Pools,
    protection::SharedRates,
    servers::Servers,
    traffic::Traffic,
};
use crate::{
    kernel::Maps,
    latency::Book,
    pods::Netns,
    policy::{by_request::ByRequest, priority::Priority},
    telemetry::Telemetry,
};

/// What the proxies of all pods have in common.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// The names of the running configuration.
    pub hosts: SharedHosts,
    /// Its destinations.
    pub destinations: SharedDestinations,
    /// What was found out about connections.
    pub detection: Arc<DetectionCounters>,
    /// Where requests are told of.
    pub telemetry: Arc<Telemetry>,
    /// What is remembered of measured requests.
    pub latency: Arc<Book>,
    /// Where agents count together, if anywhere.
    pub shared_rates: Option<Arc<SharedRates>>,
}

/// The proxy of one pod.
#[derive(Debug)]
pub struct PodProxy {
    /// Where its sockets to servers are made.
    pub netns: Arc<Netns>,
    /// The kernel half.
    pub maps: Arc<Maps>,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// Answers its DNS queries, if they are captured.
    pub resolver: Resolver,
    /// The destinations of the running configuration.
    pub destinations: SharedDestinations,
    /// What was found out about the connections of all pods.
    pub detection: Arc<DetectionCounters>,
    /// Where its requests are told of.
    pub telemetry: Arc<Telemetry>,
    /// What is remembered of measured requests.
    pub latency: Arc<Book>,
    /// Where agents count together, if anywhere.
    pub shared_rates: Option<Arc<SharedRates>>,
    /// Connections to servers, kept for requests to come.
    pub pools: Pools,
    /// Its servers whose requests come through the agent.
    pub servers: Servers,
    /// What became of its requests.
    pub traffic: Traffic,
    /// Requests whose causes are not to be tried again.
    pub failed_for: ByRequest<()>,
    /// How important the requests are that its servers work on.
    pub priorities: ByRequest<Priority>,
    /// What became of its other datagrams.
    pub datagrams: DatagramCounters,
    /// How long nothing may come either way before a flow of datagrams ends.
    pub datagram_idle: Duration,
    /// Ports of DNS servers, changed without a lock when the configuration does; 0 is none.
    dns_ports: [AtomicU16; MOST_CAPTURED_PORTS],
}

impl PodProxy {
    /// A proxy with no connection yet, which knows the names and destinations of the configuration.
    pub fn new(
        netns: Arc<Netns>,
        maps: Arc<Maps>,
        shared: Shared,
        datagram_idle: Duration,
    ) -> Self {
        Self {
            netns,
            maps,
            connections: Arc::default(),
            resolver: Resolver::new(shared.hosts),
            destinations: shared.destinations,
            detection: shared.detection,
            telemetry: shared.telemetry,
            latency: shared.latency,
            shared_rates: shared.shared_rates,
            pools: Pools::default(),
            servers: Servers::default(),
            traffic: Traffic::default(),
            failed_for: ByRequest::default(),
            priorities: ByRequest::default(),
            datagrams: DatagramCounters::default(),
            datagram_idle,
            dns_ports: Default::default(),
        }
    }

    /// Connections to these ports are DNS from now on.
    pub fn set_dns_ports(&self, ports: [u16; MOST_CAPTURED_PORTS]) {
        for (place, port) in self.dns_ports.iter().zip(ports) {
            place.store(port, Ordering::Relaxed);
        }
    }

    /// Whether connections to this port are DNS.
    pub(super) fn is_dns(&self, port: u16) -> bool {
        port != 0
            && self
                .dns_ports
                .iter()
                .any(|dns| dns.load(Ordering::Relaxed) == port)
    }
}
