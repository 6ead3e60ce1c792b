//! Value of the `pods` map.

use bytemuck::Zeroable;

/// Bits of [`Pod::capture`].
pub mod capture {
    /// Outbound TCP is redirected to the proxy.
    pub const OUTBOUND: u32 = 1;
    /// Datagrams to the pod's DNS ports go to the agent, and TCP to them to the proxy.
    pub const DNS: u32 = 2;
    /// Connections from outside to the pod's servers go to the agent.
    pub const INBOUND: u32 = 4;
}

/// Bits of [`Pod::flags`].
pub mod pod_flags {
    /// The proxy is the user's own: any listener counts, and its cgroup is let through.
    pub const EXTERNAL_PROXY: u32 = 1;
    /// There are address ranges to exclude.
    pub const EXCLUDES_CIDRS: u32 = 2;
    /// There are ports to exclude.
    pub const EXCLUDES_PORTS: u32 = 4;
    /// The addresses of [`crate::TOKEN_PREFIX6`] are local to the pod.
    pub const IPV6_TOKENS: u32 = 8;
    /// Servers that bind every address are bound to loopback instead.
    pub const REWRITES_BIND: u32 = 16;
    /// The pod has `[::1]`.
    pub const IPV6_LOOPBACK: u32 = 32;
    /// There are inbound ports to exclude.
    pub const EXCLUDES_INBOUND_PORTS: u32 = 64;
}

/// Ports of each kind that a pod can have captured.
pub const MOST_CAPTURED_PORTS: usize = 8;

/// Without a proxy connects go direct.
pub const ON_AGENT_DOWN_OPEN: u32 = 0;
/// Without a proxy connects are refused.
pub const ON_AGENT_DOWN_CLOSED: u32 = 1;

/// What to do with the calls of an enrolled pod; keyed by the cookie of its network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, Zeroable)]
pub struct Pod {
    /// Cgroup of the external proxy, 0 for none.
    pub proxy_cgroup: u64,
    /// Depth of that cgroup below the root, which is 0.
    pub proxy_level: u32,
    /// Bits of [`capture`].
    pub capture: u32,
    /// Bits of [`pod_flags`].
    pub flags: u32,
    /// [`ON_AGENT_DOWN_OPEN`] or [`ON_AGENT_DOWN_CLOSED`].
    pub on_agent_down: u32,
    /// Which entries of `exclusions` are this pod's.
    pub exclusions_id: u32,
    /// Port of the proxy in the pod, host order.
    pub proxy_port: u32,
    /// Port of the agent's datagram sockets in the pod, host order.
    pub datagram_port: u32,
    /// Always 0.
    pub reserved: u32,
    /// Ports of DNS servers, host order; 0 is none.
    pub dns_ports: [u16; MOST_CAPTURED_PORTS],
    /// Ports of other datagrams to capture, host order; 0 is none.
    pub udp_ports: [u16; MOST_CAPTURED_PORTS],
}
