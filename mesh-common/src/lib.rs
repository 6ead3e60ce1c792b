//! Types that the kernel half (`mesh-ebpf`) and the user half (`mesh-agent`) share: the keys and
//! values of the maps, the counters and the well-known ports.
//!
//! Everything is `repr(C)` without padding, so that both halves and `bpftool map dump` agree on
//! every byte. Addresses are 16 bytes in network order, IPv4 as v4-mapped IPv6; ports are in host
//! order, so that a dump reads as a person would write it.
#![no_std]
#![allow(
    clippy::inline_always,
    reason = "calls between functions cost the verifier's stack and instruction budget"
)]

mod address;
mod counter;
mod datagram;
mod exclusion;
mod inbound;
mod origin;
mod pod;
mod pod_socket;

pub use address::{
    Address, IPV4_MAPPED_PREFIX, TOKEN_PREFIX6, destination_token4, destination_token6,
    numbered_token_address, token_address, token_address6,
};
pub use counter::{COUNTERS, Counter};
pub use datagram::{DATAGRAM_FLOWS, DatagramFlow, DatagramState};
pub use exclusion::{ExclusionData, ExclusionKind};
pub use inbound::{InboundKey, InboundPeer, InboundPort, InboundProxyKey, inbound_flags};
pub use origin::{Origin, OriginKey, SocketRole, SocketState};
pub use pod::{
    MOST_CAPTURED_PORTS, ON_AGENT_DOWN_CLOSED, ON_AGENT_DOWN_OPEN, Pod, capture, pod_flags,
};
pub use pod_socket::{
    DURATION_BUCKETS, Durations, PodSocketKey, PodSocketState, PodSocketStats, pod_socket_direction,
};

mod event;
pub use event::{Event, EventKind};

/// Port of the agent's outbound listener in every pod's network namespace.
pub const OUTBOUND_PORT: u16 = 15001;

/// Port of the agent's inbound listener in every pod's network namespace.
pub const INBOUND_PORT: u16 = 15006;

/// Port of the agent's sockets for captured datagrams in every pod's network namespace.
pub const DATAGRAM_PORT: u16 = 15053;

/// IANA protocol numbers, as they stand in [`OriginKey::protocol`].
pub const PROTOCOL_TCP: u16 = 6;
/// See [`PROTOCOL_TCP`].
pub const PROTOCOL_UDP: u16 = 17;
