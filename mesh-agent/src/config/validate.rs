//! What the types cannot say: ranges, uniqueness, absolute paths.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use ipnet::IpNet;

use mesh_common::MOST_CAPTURED_PORTS;

mod destinations;
mod overload;
mod policy;

use super::accepted::accepted;
use super::field_path::FieldPath;
use super::finding::Finding;
use super::latency::Latency;
use super::model::{Agent, Capture, Config, Pod, Protocol, Proxy};
use super::values::{AccessLogTarget, CgroupPath, MetricsAddress};
use super::yaml::quoted;

/// The first rule that `config` breaks.
pub(super) fn validate(config: &Config) -> Result<(), Finding> {
    agent(&config.agent)?;
    let mut names = HashMap::new();
    let mut namespaces = HashMap::new();
    for (index, pod) in config.pods.iter().enumerate() {
        let at = FieldPath::default().field("pods").index(index);
        one_pod(&at, pod)?;
        if let Some(first) = names.insert(pod.name.as_str(), index) {
            return Err(taken(&at, "name", &pod.name, first));
        }
        if let Some(first) = namespaces.insert(normalised(&pod.netns), index) {
            return Err(taken(&at, "netns", &pod.netns.display().to_string(), first));
        }
    }
    latency(&config.latency)?;
    destinations::validate(&config.destinations)?;
    let at_defaults = FieldPath::default().field("defaults").field("policy");
    if let Some(defaults) = &config.defaults {
        policy::validate(&at_defaults, &defaults.policy)?;
        destinations::fallback(&at_defaults, "", &defaults.policy, &config.destinations)?;
    }
    if config.agent.redis.is_none() {
        let listed = config.destinations.iter().enumerate();
        let listed =
            listed.map(|(index, it)| (destinations::path(index).field("policy"), &it.policy));
        let defaults = config
            .defaults
            .iter()
            .map(|it| (at_defaults.clone(), &it.policy));
        for (at, policy) in listed.chain(defaults) {
            if let Some(index) = policy.limits.rate.iter().position(|rate| rate.shared) {
                let at = at.field("limits").field("rate").index(index);
                return Err(Finding::new(
                    at.field("shared"),
                    "needs a place where agents count together",
                    "add `agent: {redis: \"redis://HOST:PORT\"}`, or remove it",
                ));
            }
        }
    }
    Ok(())
}

fn latency(latency: &Latency) -> Result<(), Finding> {
    let at = FieldPath::default().field("latency");
    if !(0.0..=1.0).contains(&latency.sample) {
        let problem = format!("`{}` is out of range", latency.sample);
        return Err(refused(at.field("sample"), problem));
    }
    if !Latency::MOST_PER_SECOND.contains(&latency.most_per_second) {
        let problem = format!("`{}` is out of range", latency.most_per_second);
        return Err(refused(at.field("mostPerSecond"), problem));
    }
    Ok(())
}

fn agent(agent: &Agent) -> Result<(), Finding> {
    let at = FieldPath::default().field("agent");
    if let CgroupPath::Path(path) = &agent.cgroup {
        absolute(at.field("cgroup"), path)?;
    }
    if let MetricsAddress::Address(address) = agent.metrics
        && address.port() == 0
    {
        return Err(refused(at.field("metrics"), "port 0 is not a port"));
    }
    let socket = at.field("adminSocket");
    absolute(socket.clone(), &agent.admin_socket)?;
    let length = agent.admin_socket.as_os_str().len();
    if length > Agent::MAX_SOCKET_PATH {
        return Err(refused(socket, format!("the path has {length} bytes")));
    }
    if agent
        .admin_socket
        .as_os_str()
        .as_encoded_bytes()
        .ends_with(b"/")
    {
        return Err(refused(socket, "the path is a directory's"));
    }
    absolute(at.field("pinPath"), &agent.pin_path)?;
    if let AccessLogTarget::Path(path) = &agent.access_log {
        absolute(at.field("accessLog"), path)?;
    }
    if let Some(tracing) = &agent.tracing {
        let at = at.field("tracing");
        if !(0.0..=1.0).contains(&tracing.sample) {
            let problem = format!("`{}` is out of range", tracing.sample);
            return Err(refused(at.field("sample"), problem));
        }
        if let (Some(otlp), None) = (&tracing.otlp, tracing.collector()) {
            let problem = format!("{} is not the URL of a collector", quoted(otlp));
            return Err(refused(at.field("otlp"), problem));
        }
    }
    if let Some(redis) = &agent.redis {
        let is_url = redis.strip_prefix("redis://").and_then(|rest| {
            rest.trim_end_matches('/')
                .parse::<http::uri::Authority>()
                .ok()
        });
        if is_url.is_none() {
            let problem = format!("{} is not the URL of a Redis server", quoted(redis));
            return Err(refused(at.field("redis"), problem));
        }
    }
    if agent.drain_timeout > Agent::MAX_DRAIN_TIMEOUT {
        let problem = format!("`{}` is too long", agent.drain_timeout);
        return Err(refused(at.field("drainTimeout"), problem));
    }
    if !Agent::UDP_IDLE_TIMEOUT.contains(&agent.udp_idle_timeout) {
        let problem = format!("`{}` is out of range", agent.udp_idle_timeout);
        return Err(refused(at.field("udpIdleTimeout"), problem));
    }
    if !(Agent::MIN_CONNECTIONS..=Agent::MAX_CONNECTIONS).contains(&agent.max_connections) {
        let problem = format!("`{}` is out of range", agent.max_connections);
        return Err(refused(at.field("maxConnections"), problem));
    }
    Ok(())
}

fn one_pod(at: &FieldPath, pod: &Pod) -> Result<(), Finding> {
    if !is_dns_label(&pod.name) {
        return Err(refused(
            at.field("name"),
            format!("{} is not a DNS label", quoted(&pod.name)),
        ));
    }
    absolute(at.field("netns"), &pod.netns)?;
    for (field, ports) in [
        ("excludePorts", &pod.exclude_ports),
        ("excludeInboundPorts", &pod.exclude_inbound_ports),
    ] {
        no_port_0(&at.field(field), ports)?;
    }
    let cidrs = at.field("excludeCidrs");
    for (index, cidr) in pod.exclude_cidrs.iter().enumerate() {
        if let Some(v4) = mapped_v4(cidr) {
            let problem = format!("`{cidr}` is an IPv4 network in IPv6 notation");
            return Err(Finding::new(
                cidrs.index(index),
                problem,
                format!("write {v4}"),
            ));
        }
    }
    captured_ports(&at.field("capture"), pod)?;
    if let Some(overload) = &pod.overload {
        overload::validate(&at.field("overload"), overload)?;
    }
    if let Proxy::External { port, cgroup } = &pod.proxy {
        let external = at.field("proxy").field("external");
        if *port == 0 {
            return Err(refused(external.field("port"), "port 0 is not a port"));
        }
        absolute(external.field("cgroup"), cgroup)?;
    }
    Ok(())
}

fn captured_ports(capture: &FieldPath, pod: &Pod) -> Result<(), Finding> {
    let Capture {
        dns_ports,
        udp_ports,
        ..
    } = &pod.capture;
    let dns = capture.field("dnsPorts");
    if dns_ports.is_empty() {
        let remedy = "write [53], or set `dns: false`";
        return Err(Finding::new(dns, "is empty", remedy));
    }
    for (at, ports) in [(dns, dns_ports), (capture.field("udpPorts"), udp_ports)] {
        if ports.len() > MOST_CAPTURED_PORTS {
            let problem = format!("{} ports, of {MOST_CAPTURED_PORTS} at most", ports.len());
            return Err(refused(at, problem));
        }
        no_port_0(&at, ports)?;
    }
    no_port_0(
        &capture.field("proxyProtocolPorts"),
        &pod.capture.proxy_protocol_ports,
    )
}

fn no_port_0(at: &FieldPath, ports: &[u16]) -> Result<(), Finding> {
    match ports.iter().position(|port| *port == 0) {
        Some(index) => Err(refused(at.index(index), "port 0 is not a port")),
        None => Ok(()),
    }
}

/// What is valid but will surprise.
pub(super) fn warnings(config: &Config) -> Vec<Finding> {
    let mut warnings = destinations::warnings(config);
    for (index, pod) in config.pods.iter().enumerate() {
        let at = FieldPath::default().field("pods").index(index);
        let capture = at.field("capture");
        if pod.capture.inbound && pod.proxy != Proxy::Agent {
            warnings.push(Finding::new(
                capture.field("inbound"),
                "inbound connections of a pod with a proxy of its own are left alone",
                "set it to false to silence this",
            ));
        }
        if !pod.capture.inbound && !pod.capture.proxy_protocol_ports.is_empty() {
            warnings.push(Finding::new(
                capture.field("proxyProtocolPorts"),
                "has no effect without `inbound: true`",
                "remove it, or capture inbound connections",
            ));
        }
        if pod.overload.is_some()
            && (!pod.capture.inbound || pod.capture.inbound_protocol == Protocol::Tcp)
        {
            warnings.push(Finding::new(
                at.field("overload"),
                "has no effect on what the agent does not look into",
                "set `capture: {inbound: true, inboundProtocol: auto}`",
            ));
        }
        if !pod.capture.udp_ports.is_empty() && pod.proxy != Proxy::Agent {
            warnings.push(Finding::new(
                capture.field("udpPorts"),
                "datagrams of a pod with a proxy of its own are left alone",
                "remove it to silence this",
            ));
        }
        if pod.capture.dns && pod.proxy != Proxy::Agent {
            warnings.push(Finding::new(
                capture.field("dns"),
                "a pod with a proxy of its own asks its DNS servers itself",
                "set it to false to silence this",
            ));
        }
        if !pod.capture.outbound && pod.proxy != Proxy::Agent {
            warnings.push(Finding::new(
                capture.field("outbound"),
                "nothing of this pod is captured, and its own proxy has to steer the traffic itself",
                "set it to true, or remove the pod",
            ));
        }
        for (index, cidr) in pod.exclude_cidrs.iter().enumerate() {
            let network = cidr.trunc();
            if network != *cidr {
                warnings.push(Finding::new(
                    at.field("excludeCidrs").index(index),
                    format!("`{cidr}` has host bits and is taken as {network}"),
                    format!("write {network}"),
                ));
            }
        }
    }
    warnings
}

/// A finding whose remedy is what the field accepts.
fn refused(path: FieldPath, problem: impl Into<String>) -> Finding {
    let remedy = accepted(&path.pattern()).map(|accepted| format!("write {accepted}"));
    Finding::new(path, problem, remedy.unwrap_or_default())
}

fn taken(at: &FieldPath, field: &str, value: &str, first: usize) -> Finding {
    let other = FieldPath::default().field("pods").index(first).field(field);
    let remedy = format!("give each pod a {field} of its own");
    used_twice(at.field(field), value, other, remedy)
}

/// A value that `other` has already.
fn used_twice(at: FieldPath, value: &str, other: FieldPath, remedy: impl Into<String>) -> Finding {
    let problem = format!("{} is already used by {other}", quoted(value));
    Finding {
        other: Some(other),
        ..Finding::new(at, problem, remedy)
    }
}

/// A number or a span between these.
fn within<T: PartialOrd + std::fmt::Display + Copy>(
    at: FieldPath,
    value: T,
    range: impl std::ops::RangeBounds<T>,
) -> Result<(), Finding> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(refused(at, format!("`{value}` is out of range")))
}

fn absolute(field: FieldPath, path: &Path) -> Result<(), Finding> {
    let text = path.display().to_string();
    if text.is_empty() {
        return Err(refused(field, "is empty"));
    }
    if text.contains('\0') {
        return Err(refused(field, format!("{} contains a NUL", quoted(&text))));
    }
    if !path.is_absolute() {
        return Err(refused(
            field,
            format!("{} is not an absolute path", quoted(&text)),
        ));
    }
    Ok(())
}

/// RFC 1123: at most 63 of a-z, 0-9 and `-`, no `-` at either end.
fn is_dns_label(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The path without `.`, `..` and doubled slashes, for comparing; links are not followed.
fn normalised(path: &Path) -> PathBuf {
    path.components()
        .fold(PathBuf::new(), |mut plain, component| {
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    plain.pop();
                }
                component => plain.push(component),
            }
            plain
        })
}

/// The IPv4 network that `cidr` means where it lies in `::ffff:0:0/96`: addresses of that kind are
/// treated as IPv4 ones, so that an IPv6 rule would never match.
fn mapped_v4(cidr: &IpNet) -> Option<IpNet> {
    let IpNet::V6(cidr) = cidr else { return None };
    let prefix = cidr.prefix_len().checked_sub(96)?;
    let address = cidr.addr().to_ipv4_mapped()?;
    IpNet::new(address.into(), prefix)
        .ok()
        .map(|network| network.trunc())
}
