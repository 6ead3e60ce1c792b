//! Where an app's datagrams wanted to go.

use bytemuck::{Pod, Zeroable};

use crate::Address;

/// Destinations that one socket is remembered to talk to. Resolvers use three servers at most
/// (`MAXNS` of resolv.h); a socket that talks to more forgets the one that it used longest ago.
pub const DATAGRAM_FLOWS: usize = 8;

/// One destination of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DatagramFlow {
    /// Where the app sends.
    pub address: Address,
    /// The address that stands for that: nobody else has the same in this network namespace.
    pub token: Address,
    /// Its port, host order; 0 for a free slot.
    pub port: u16,
    /// Always 0.
    pub reserved: u16,
    /// [`DatagramState::sequence`] when it was used last.
    pub used: u32,
}

/// Value of `udp_storage_map`, one per socket that has sent a captured datagram.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DatagramState {
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// How often an address was given to the socket, or looked up.
    pub sequence: u32,
    /// The proxy's port, host order.
    pub port: u32,
    /// Its destinations.
    pub flows: [DatagramFlow; DATAGRAM_FLOWS],
}
