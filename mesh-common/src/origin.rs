//! Where a redirected connection wanted to go, and what a socket is to the mesh.

use bytemuck::{Pod, Zeroable};

use crate::{Address, PROTOCOL_UDP};

/// Key of `origin_dst_map`: a connection between a pod's app and the proxy in that pod, or for
/// datagrams the address alone that stands for one destination of one socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct OriginKey {
    /// Cookie of the pod's network namespace (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
    /// The app's end; zero for datagrams.
    pub client_address: Address,
    /// The proxy's end: the loopback address that stands for the destination.
    pub proxy_address: Address,
    /// The app's port, host order; 0 for datagrams.
    pub client_port: u16,
    /// The proxy's port, host order.
    pub proxy_port: u16,
    /// IANA protocol number.
    pub protocol: u16,
    /// Always 0.
    pub reserved: u16,
}

impl OriginKey {
    /// The key for the datagrams sent to `token`.
    #[inline(always)]
    pub const fn datagrams(netns_cookie: u64, token: Address, port: u16) -> Self {
        Self {
            netns_cookie,
            client_address: [0; 16],
            proxy_address: token,
            client_port: 0,
            proxy_port: port,
            protocol: PROTOCOL_UDP,
            reserved: 0,
        }
    }
}

/// Value of `origin_dst_map`: what the app asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Origin {
    /// The destination that the app connected to.
    pub address: Address,
    /// Its port, host order.
    pub port: u16,
    /// 1 once the proxy's end of the connection exists and owns this entry.
    pub accepted: u16,
    /// Process (thread group) that called connect.
    pub process: u32,
    /// Cookie of the app's socket; tells this connection from a later one with the same addresses.
    pub client_cookie: u64,
    /// When connect was called, nanoseconds of `CLOCK_MONOTONIC`.
    pub connected_at: u64,
}

/// What a socket is to the mesh; stands in [`SocketState::role`].
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// Nothing (a zeroed value).
    None = 0,
    /// An app's socket that was redirected.
    Client = 1,
    /// The proxy's end of a redirected connection.
    Accepted = 2,
    /// An upstream socket of the agent: never redirected.
    Upstream = 3,
    /// The agent's listener: only this counts as "the agent is there".
    Listener = 4,
    /// A server's socket that was bound to a loopback address instead of the one it asked for.
    InboundBound = 5,
    /// A server's socket that stands in `inbound_ports`.
    InboundListening = 6,
    /// The agent's connection to a server in the pod, for a client outside.
    InboundUpstream = 7,
    /// The server's end of it.
    InboundAccepted = 8,
}

/// Value of `sk_storage_map`, one per socket.
///
/// The roles of the agent's own sockets are written from user space through the map's file
/// descriptor, which no pod has: a pod cannot forge them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SocketState {
    /// Original destination, for clients and accepted sockets. What a server asked to be bound to.
    /// The client's address, for inbound connections.
    pub origin: Origin,
    /// Where a client was redirected to. What a server was bound to instead, or zero. The address that
    /// the client connected to, for inbound connections.
    pub proxy_address: Address,
    /// Its port, host order.
    pub proxy_port: u16,
    /// A [`SocketRole`].
    pub role: u16,
    /// 1 once a client's handshake with the proxy completed.
    pub established: u32,
}

impl SocketState {
    /// The state of one of the agent's own sockets.
    pub const fn own(role: SocketRole) -> Self {
        Self {
            origin: Origin {
                address: [0; 16],
                port: 0,
                accepted: 0,
                process: 0,
                client_cookie: 0,
                connected_at: 0,
            },
            proxy_address: [0; 16],
            proxy_port: 0,
            role: role as u16,
            established: 0,
        }
    }
}
