//! Keys of the `exclusions` map.

use bytemuck::{Pod, Zeroable};

use crate::Address;

/// What an entry of `exclusions` excludes; stands in [`ExclusionData::kind`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExclusionKind {
    /// A destination address range.
    Cidr = 1,
    /// A destination port, in the first two bytes of the address, network order.
    Port = 2,
    /// The port of a server in the pod, likewise.
    InboundPort = 3,
}

/// The data part of a longest-prefix-match key. The first 64 bits always match whole, so their
/// byte order does not matter; it is the host's, for readable dumps.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ExclusionData {
    /// [`crate::Pod::exclusions_id`] of the pods this entry is for.
    pub exclusions_id: u32,
    /// An [`ExclusionKind`].
    pub kind: u32,
    /// Destination, or port for [`ExclusionKind::Port`].
    pub address: Address,
}

impl ExclusionData {
    /// Bits of the key before the address: id and kind.
    pub const FIXED_BITS: u32 = 64;
    /// Prefix length that matches one port exactly.
    pub const PORT_BITS: u32 = Self::FIXED_BITS + 16;
    /// Prefix length that matches one address exactly.
    pub const ADDRESS_BITS: u32 = Self::FIXED_BITS + 128;

    /// The key data for a destination address.
    #[inline(always)]
    pub const fn cidr(exclusions_id: u32, address: Address) -> Self {
        Self {
            exclusions_id,
            kind: ExclusionKind::Cidr as u32,
            address,
        }
    }

    /// The key data for a destination port.
    #[inline(always)]
    pub const fn port(exclusions_id: u32, port: u16) -> Self {
        Self::of_port(exclusions_id, port, ExclusionKind::Port)
    }

    /// The key data for the port of a server in the pod.
    #[inline(always)]
    pub const fn inbound_port(exclusions_id: u32, port: u16) -> Self {
        Self::of_port(exclusions_id, port, ExclusionKind::InboundPort)
    }

    #[inline(always)]
    const fn of_port(exclusions_id: u32, port: u16, kind: ExclusionKind) -> Self {
        let mut address = [0; 16];
        let bytes = port.to_be_bytes();
        address[0] = bytes[0];
        address[1] = bytes[1];
        Self {
            exclusions_id,
            kind: kind as u32,
            address,
        }
    }
}
