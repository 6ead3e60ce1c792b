//! Addresses as four words in network order, which is how the contexts hold them.

use mesh_common::{Address, token_address6};

/// An IPv6 or v4-mapped address; each word in network order.
pub type Words = [u32; 4];

/// Third word of every v4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

/// The v4-mapped form of an IPv4 address in network order.
#[inline(always)]
pub const fn mapped(address: u32) -> Words {
    [0, 0, MAPPED, address]
}

/// Whether the address is v4-mapped.
#[inline(always)]
pub const fn is_mapped(words: &Words) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == MAPPED
}

/// `[::1]`.
pub const LOOPBACK6: Words = [0, 0, 0, 1_u32.to_be()];

/// 127.0.0.1 in network order.
pub const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();

/// Whether an IPv4 address, in network order, is one of 127.0.0.0/8. Every redirected IPv4
/// connection has one at the proxy's end.
#[inline(always)]
pub const fn is_loopback4(address: u32) -> bool {
    address & 0xff00_0000_u32.to_be() == 0x7f00_0000_u32.to_be()
}

/// Whether an address is one of `mesh_common::TOKEN_PREFIX6`.
#[inline(always)]
pub const fn is_token6(address: &Words) -> bool {
    const PREFIX: Words = words(token_address6(0));
    address[0] == PREFIX[0] && address[1] == PREFIX[1]
}

/// The bytes of an address, as the maps hold it.
#[inline(always)]
pub const fn bytes(words: Words) -> Address {
    // SAFETY: 16 bytes of plain data either way.
    unsafe { core::mem::transmute::<Words, Address>(words) }
}

/// The words of an address that came from a map.
#[inline(always)]
pub const fn words(address: Address) -> Words {
    // SAFETY: 16 bytes of plain data either way.
    unsafe { core::mem::transmute::<Address, Words>(address) }
}

/// Whether two addresses are the same, without a call to `memcmp`.
#[inline(always)]
pub const fn same(left: &Words, right: &Words) -> bool {
    left[0] == right[0] && left[1] == right[1] && left[2] == right[2] && left[3] == right[3]
}

/// Whether a connect to this address stays in the pod: unspecified (which the kernel takes for
/// loopback), loopback, multicast and broadcast. IPv6 link-local too: the agent could not reach it
/// without the scope, which is not part of the address.
#[inline(always)]
pub const fn is_local(address: &Words) -> bool {
    if is_mapped(address) {
        let first = u32::from_be(address[3]) >> 24;
        // 240.0.0.0/4 is reserved, but clouds give it to pods.
        let multicast = first >> 4 == 14;
        return first == 0 || first == 127 || multicast || address[3] == u32::MAX;
    }
    let high = u32::from_be(address[0]);
    let low = u32::from_be(address[3]);
    let unspecified_or_loopback = high == 0 && address[1] == 0 && address[2] == 0 && low <= 1;
    unspecified_or_loopback || high >> 22 == 0xfe80 >> 6 || high >> 24 == 0xff
}
