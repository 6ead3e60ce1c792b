//! What the kernel half knows of the servers inside pods whose inbound connections are captured.

use bytemuck::{Pod, Zeroable};

use crate::Address;

/// Key of `inbound_ports`: where a pod's server listens, as the server asked for it. `::` stands for
/// every address, `::ffff:0.0.0.0` for every IPv4 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct InboundKey {
    /// Cookie of the pod's network namespace (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
    /// The address.
    pub address: Address,
    /// The port, host order.
    pub port: u32,
    /// Always 0.
    pub reserved: u32,
}

impl InboundKey {
    /// The key of a listener.
    #[inline(always)]
    pub const fn new(netns_cookie: u64, address: Address, port: u16) -> Self {
        Self {
            netns_cookie,
            address,
            port: port as u32,
            reserved: 0,
        }
    }
}

/// Bits of [`InboundPort::flags`].
pub mod inbound_flags {
    /// The server was bound to a loopback address instead, and is reached from outside only by
    /// steering.
    pub const REWRITTEN: u32 = 1;
    /// The agent found the server listening, and looks by itself whether it still does.
    pub const FOUND: u32 = 2;
    /// The server takes no IPv4, although it is bound to every address. Known of found ones only.
    pub const ONLY_IPV6: u32 = 4;
}

/// Value of `inbound_ports`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct InboundPort {
    /// Sockets that listen there now. The entry stays when they are gone; the agent prunes it.
    pub listeners: u64,
    /// Where they really listen.
    pub target: Address,
    /// Bits of [`inbound_flags`].
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Key of `inbound_proxies`, whose values are the agent's inbound listeners.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct InboundProxyKey {
    /// Cookie of the pod's network namespace.
    pub netns_cookie: u64,
    /// 4 or 6.
    pub ip_version: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Value of `inbound_peers`: the ends of a client's connection to the agent, for the time that the
/// agent's connection to the server takes to be accepted. The key is that connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct InboundPeer {
    /// The client.
    pub peer_address: Address,
    /// The address that it connected to.
    pub local_address: Address,
    /// The client's port, host order.
    pub peer_port: u16,
    /// The port that it connected to, host order.
    pub local_port: u16,
    /// Always 0.
    pub reserved: u32,
    /// Cookie of the agent's socket.
    pub cookie: u64,
}
