//! The configuration as the rest of the agent sees it: plain values, defaults filled in.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;
use mesh_common::MOST_CAPTURED_PORTS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::overload::Overload;
use super::policy::Policy;
use super::values::{AccessLogTarget, CgroupPath, MetricsAddress, Timespan, default_if_null};

/// The whole configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(title = "mesh-agent configuration")]
pub struct Config {
    /// Settings of the agent itself.
    #[serde(deserialize_with = "default_if_null")]
    pub agent: Agent,
    /// The pods to enrol. An empty list is fine.
    #[serde(deserialize_with = "default_if_null")]
    pub pods: Vec<Pod>,
    /// The services that they talk to. Others can be reached as well.
    #[serde(deserialize_with = "default_if_null")]
    pub destinations: Vec<Destination>,
    /// What is done for those that are not listed. Without it their bytes are forwarded as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,
    /// What is measured of where time goes.
    #[serde(deserialize_with = "default_if_null")]
    pub latency: Latency,
}

/// Settings of the agent itself. A change takes effect at the next start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Agent {
    /// The cgroup v2 directory the kernel programs are attached to: `auto` or an absolute path.
    pub cgroup: CgroupPath,
    /// Where metrics and health are served over HTTP: an address with port, or `off`.
    pub metrics: MetricsAddress,
    /// Unix socket of the admin API: an absolute path of at most 107 bytes.
    #[schemars(regex(pattern = "^/"), length(max = 107))]
    pub admin_socket: PathBuf,
    /// Directory on a bpffs that holds the pinned maps and links: an absolute path.
    #[schemars(regex(pattern = "^/"))]
    pub pin_path: PathBuf,
    /// Where this node is: servers in the same zone are preferred, as long as enough are healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Where each request is told of, in a line of JSON: `off`, `stdout` or an absolute path.
    pub access_log: AccessLogTarget,
    /// Redis server where agents count together what is `shared`: `redis://HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^redis://[^/]+"))]
    pub redis: Option<String>,
    /// How requests take part in traces. Without it their headers are passed on as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// How long SIGTERM waits for open connections: at most `10m`.
    pub drain_timeout: Timespan,
    /// How long nothing may come either way before a flow of captured datagrams ends: 1s to 24h.
    pub udp_idle_timeout: Timespan,
    /// Capacity of `origin_dst_map` in connections: 1024 to 4194304.
    #[schemars(range(min = 1024, max = 4_194_304))]
    pub max_connections: u32,
}

impl Agent {
    /// Longest path a Unix socket address can hold, in bytes, without the closing NUL.
    pub const MAX_SOCKET_PATH: usize = 107;
    /// Shortest and longest `udpIdleTimeout`.
    pub const UDP_IDLE_TIMEOUT: RangeInclusive<Timespan> =
        Timespan::from_secs(1)..=Timespan::from_secs(24 * 60 * 60);
    /// Longest `drainTimeout`.
    pub const MAX_DRAIN_TIMEOUT: Timespan = Timespan::from_secs(600);
    /// Smallest `maxConnections`.
    pub const MIN_CONNECTIONS: u32 = 1024;
    /// Largest `maxConnections`.
    pub const MAX_CONNECTIONS: u32 = 4_194_304;
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            cgroup: CgroupPath::Auto,
            metrics: MetricsAddress::default(),
            admin_socket: PathBuf::from("/run/mesh-agent/admin.sock"),
            pin_path: PathBuf::from("/sys/fs/bpf/mesh"),
            zone: None,
            access_log: AccessLogTarget::Off,
            tracing: None,
            redis: None,
            drain_timeout: Timespan::from_secs(5),
            udp_idle_timeout: Timespan::from_secs(60),
            max_connections: 262_144,
        }
    }
}

/// How requests take part in traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// Which share of the requests that belong to no trace begins one that is kept: 0 to 1.
    #[serde(default = "Tracing::default_sample")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// Collector that spans are sent to as OTLP over HTTP: `http://HOST:PORT/PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^http://[^/]+"))]
    pub otlp: Option<String>,
}

impl Tracing {
    const fn default_sample() -> f64 {
        0.01
    }

    /// `otlp`, if there is one that makes sense.
    pub fn collector(&self) -> Option<http::Uri> {
        let uri: http::Uri = self.otlp.as_deref()?.parse().ok()?;
        let is_good = uri.scheme_str() == Some("http") && uri.authority().is_some();
        is_good.then_some(uri)
    }
}

/// A service that pods talk to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// Name in tables, logs and metrics: a DNS label, unique in the file.
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// Host names that the agent answers DNS queries for, in pods whose DNS is captured.
    #[serde(default, deserialize_with = "default_if_null")]
    pub hosts: Vec<String>,
    /// The addresses of those names, and what apps connect to.
    #[serde(default, deserialize_with = "default_if_null")]
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpAddr>,
    /// The port that apps connect to: 1 to 65535. Without it: every port of `addresses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// What is spoken there.
    #[serde(default)]
    pub protocol: Protocol,
    /// The servers. Without any: the address that the app connects to.
    #[serde(default, deserialize_with = "default_if_null")]
    pub endpoints: Vec<Endpoint>,
    /// What is done for its connections and requests.
    #[serde(default, deserialize_with = "default_if_null")]
    pub policy: Policy,
}

/// What is spoken with a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// What the first bytes of each connection tell.
    #[default]
    Auto,
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, begun with prior knowledge.
    Http2,
    /// Anything: bytes are forwarded as they are.
    Tcp,
}

/// A server of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Its IP address and port.
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// Its share of the requests, in proportion: 1 to 1000000.
    #[serde(default = "Endpoint::default_weight")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: u32,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl Endpoint {
    /// Smallest and largest `weight`.
    pub const WEIGHT: RangeInclusive<u32> = 1..=1_000_000;

    const fn default_weight() -> u32 {
        1
    }
}

/// What is done for destinations that are not listed; each address and port is one of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Defaults {
    /// What is spoken there.
    pub protocol: Protocol,
    /// What is done for their connections and requests.
    #[serde(deserialize_with = "default_if_null")]
    pub policy: Policy,
}

/// One pod: a network namespace whose sockets the agent captures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// Name in tables, logs and metrics: a DNS label, unique in the file.
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// Path of the network namespace: absolute, unique in the file. It may appear later.
    #[schemars(regex(pattern = "^/"))]
    pub netns: PathBuf,
    /// Which traffic is captured.
    #[serde(default, deserialize_with = "default_if_null")]
    pub capture: Capture,
    /// Destination ports that are never captured: 1 to 65535.
    #[serde(default, deserialize_with = "default_if_null")]
    #[schemars(inner(range(min = 1)))]
    pub exclude_ports: Vec<u16>,
    /// Ports of servers in the pod whose connections are never captured: 1 to 65535.
    #[serde(default, deserialize_with = "default_if_null")]
    #[schemars(inner(range(min = 1)))]
    pub exclude_inbound_ports: Vec<u16>,
    /// Destination networks that are never captured.
    #[serde(default, deserialize_with = "default_if_null")]
    #[schemars(with = "Vec<String>")]
    pub exclude_cidrs: Vec<IpNet>,
    /// What becomes of a connect while nobody listens for captured traffic in the pod.
    #[serde(default)]
    pub on_agent_down: OnAgentDown,
    /// Who receives the captured traffic.
    #[serde(default)]
    pub proxy: Proxy,
    /// What keeps its servers from being asked more than they can do. Without it, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
}

/// Which traffic of a pod is captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Capture {
    /// Outbound TCP. When `false`, the agent listens in the pod but the kernel redirects nothing.
    pub outbound: bool,
    /// Inbound TCP: connections from outside to servers in the pod go through the agent.
    pub inbound: bool,
    /// How they are brought there.
    pub inbound_steering: InboundSteering,
    /// What is spoken there. Requests of HTTP are counted, and carry the mark of failed calls on.
    pub inbound_protocol: Protocol,
    /// Ports of servers that are told their client's address by a PROXY protocol header (version 2):
    /// each 1 to 65535.
    #[schemars(inner(range(min = 1)))]
    pub proxy_protocol_ports: Vec<u16>,
    /// DNS, over UDP and TCP: the agent asks the server that the app asked, and keeps answers.
    pub dns: bool,
    /// Ports of DNS servers: 1 to 8 of them, each 1 to 65535.
    #[schemars(length(min = 1, max = MOST_CAPTURED_PORTS), inner(range(min = 1)))]
    pub dns_ports: Vec<u16>,
    /// Other UDP ports to capture, at most 8, each 1 to 65535.
    #[schemars(length(max = MOST_CAPTURED_PORTS), inner(range(min = 1)))]
    pub udp_ports: Vec<u16>,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            outbound: true,
            inbound: false,
            inbound_steering: InboundSteering::Bind,
            inbound_protocol: Protocol::Tcp,
            proxy_protocol_ports: Vec::new(),
            dns: false,
            dns_ports: vec![53],
            udp_ports: Vec::new(),
        }
    }
}

/// How connections from outside to servers in the pod are brought to the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InboundSteering {
    /// A server that binds every address is bound to loopback instead, and so is only reached
    /// through the agent, by clients in the pod too that use the pod's own address.
    #[default]
    Bind,
    /// Servers are left as they are, and connections from other machines and pods are steered.
    SkLookup,
}

/// What becomes of a connect while nobody listens for captured traffic in the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnAgentDown {
    /// It goes to its destination directly.
    #[default]
    Open,
    /// It is refused with ECONNREFUSED.
    Closed,
}

/// Who receives the captured traffic of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Proxy {
    /// The agent.
    #[default]
    Agent,
    /// A proxy of the user's own that listens in the pod's network namespace and asks
    /// `SO_ORIGINAL_DST` for the destination.
    External {
        /// Port the proxy listens on at 127.0.0.1: 1 to 65535.
        #[schemars(range(min = 1))]
        port: u16,
        /// The cgroup v2 directory the proxy runs in: an absolute path. Its sockets are let through.
        #[schemars(regex(pattern = "^/"))]
        cgroup: PathBuf,
    },
}
