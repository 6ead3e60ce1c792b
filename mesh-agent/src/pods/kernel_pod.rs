//! What the kernel half is told of a pod.

use mesh_common::{
    DATAGRAM_PORT, MOST_CAPTURED_PORTS, ON_AGENT_DOWN_CLOSED, ON_AGENT_DOWN_OPEN, OUTBOUND_PORT,
    Pod as KernelPod, capture, pod_flags,
};

use super::{Netns, PodError};
use crate::{
    config::{InboundSteering, OnAgentDown, Pod, Proxy},
    kernel::Cgroup,
};

/// Whether datagrams of this pod come to the agent. With a proxy of its own they do not.
pub(super) fn captures_datagrams(pod: &Pod) -> bool {
    pod.proxy == Proxy::Agent && (pod.capture.dns || !pod.capture.udp_ports.is_empty())
}

/// Whether connections to servers in this pod come to the agent. With a proxy of its own they do not.
pub(super) fn captures_inbound(pod: &Pod) -> bool {
    pod.proxy == Proxy::Agent && pod.capture.inbound
}

/// The kernel half's view of a pod, still without its exclusions id.
pub(super) fn kernel_pod(pod: &Pod) -> Result<KernelPod, PodError> {
    let mut flags = 0;
    if !pod.exclude_cidrs.is_empty() {
        flags |= pod_flags::EXCLUDES_CIDRS;
    }
    if !pod.exclude_ports.is_empty() {
        flags |= pod_flags::EXCLUDES_PORTS;
    }
    if !pod.exclude_inbound_ports.is_empty() {
        flags |= pod_flags::EXCLUDES_INBOUND_PORTS;
    }
    if captures_inbound(pod) && pod.capture.inbound_steering == InboundSteering::Bind {
        flags |= pod_flags::REWRITES_BIND;
    }
    let captures_dns = pod.proxy == Proxy::Agent && pod.capture.dns;
    let mut kernel = KernelPod {
        proxy_cgroup: 0,
        proxy_level: 0,
        capture: (u32::from(pod.capture.outbound) * capture::OUTBOUND)
            | (u32::from(captures_dns) * capture::DNS)
            | (u32::from(captures_inbound(pod)) * capture::INBOUND),
        flags,
        on_agent_down: match pod.on_agent_down {
            OnAgentDown::Open => ON_AGENT_DOWN_OPEN,
            OnAgentDown::Closed => ON_AGENT_DOWN_CLOSED,
        },
        exclusions_id: 0,
        proxy_port: u32::from(OUTBOUND_PORT),
        datagram_port: u32::from(DATAGRAM_PORT),
        reserved: 0,
        dns_ports: ports(if captures_dns {
            &pod.capture.dns_ports
        } else {
            &[]
        }),
        udp_ports: ports(if pod.proxy == Proxy::Agent {
            &pod.capture.udp_ports
        } else {
            &[]
        }),
    };
    if let Proxy::External { port, cgroup } = &pod.proxy {
        let error = |source| PodError::ProxyCgroup {
            pod: pod.name.clone(),
            source,
        };
        let cgroup = Cgroup::open(cgroup).map_err(error)?;
        kernel.proxy_cgroup = cgroup.id().map_err(error)?;
        kernel.proxy_level = cgroup.level().map_err(error)?;
        kernel.proxy_port = u32::from(*port);
        kernel.flags |= pod_flags::EXTERNAL_PROXY;
    }
    Ok(kernel)
}

/// What the kernel half is told of a pod's IPv6.
pub(super) const IPV6_FLAGS: u32 = pod_flags::IPV6_TOKENS | pod_flags::IPV6_LOOPBACK;

pub(super) fn ipv6_flags(netns: &Netns, has_ipv6: bool) -> u32 {
    let has_tokens = netns.ensure_token_route().unwrap_or(false);
    (u32::from(has_tokens) * pod_flags::IPV6_TOKENS)
        | (u32::from(has_ipv6) * pod_flags::IPV6_LOOPBACK)
}

fn ports(ports: &[u16]) -> [u16; MOST_CAPTURED_PORTS] {
    let mut places = [0; MOST_CAPTURED_PORTS];
    for (place, port) in places.iter_mut().zip(ports) {
        *place = *port;
    }
    places
}
