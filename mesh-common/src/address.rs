//! Addresses, and the loopback address that stands for a destination.

/// An IPv6 address in network order; IPv4 addresses are v4-mapped.
pub type Address = [u8; 16];

/// What the first 12 bytes of a v4-mapped address are (RFC 4291, 2.5.5.2).
pub const IPV4_MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// First address of 127.64.0.0/10, the range that stands for destinations.
///
/// It keeps clear of 127.0.0.0/16 (where people put their own services) and of 127.255.255.255
/// (a broadcast address).
const TOKEN_BASE: u32 = 0x7f40_0000;
const TOKEN_MASK: u32 = 0x003f_ffff;

/// The loopback address, in host order, that a connection to `address`:`port` is redirected to.
///
/// Every destination gets an address of its own, because the kernel picks ephemeral ports per
/// (source, destination): with a single listener address all connections of a pod would share one
/// destination and run out at some 28,000; with one per destination they run out exactly where they
/// would without the mesh. For the same reason two connections from one bound source port stay two.
#[inline(always)]
pub const fn token_address(address: u32, port: u16) -> u32 {
    numbered_token_address(mix((address as u64) << 16 | port as u64) as u32)
}

/// Finaliser of MurmurHash3 (public domain, A. Appleby): every input bit reaches every output bit.
#[inline(always)]
const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// First half of the IPv6 addresses that stand for destinations: `fd6d:6573:6861:6774::/64`, which
/// the agent makes local to the pod's loopback interface. Unique local (RFC 4193), so nobody routes
/// it.
pub const TOKEN_PREFIX6: [u8; 8] = *b"\xfdmeshagt";

/// The IPv6 address that a connection to `address`:`port` is redirected to, as [`token_address`].
#[inline(always)]
pub const fn destination_token6(address: [u32; 4], port: u16) -> Address {
    token_address6(mix6(address, port))
}

/// The loopback IPv4 address, in host order, that stands for an IPv6 destination: for sockets that
/// cannot reach an IPv6 address.
#[inline(always)]
pub const fn destination_token4(address: [u32; 4], port: u16) -> u32 {
    numbered_token_address(mix6(address, port) as u32)
}

#[inline(always)]
const fn mix6(address: [u32; 4], port: u16) -> u64 {
    let high = (address[0] as u64) << 32 | address[1] as u64;
    let low = (address[2] as u64) << 32 | address[3] as u64;
    mix(mix(high ^ port as u64) ^ low)
}

/// The IPv6 address whose second half is `number`.
#[inline(always)]
pub const fn token_address6(number: u64) -> Address {
    let prefix = TOKEN_PREFIX6;
    let end = number.to_be_bytes();
    [
        prefix[0], prefix[1], prefix[2], prefix[3], prefix[4], prefix[5], prefix[6], prefix[7],
        end[0], end[1], end[2], end[3], end[4], end[5], end[6], end[7],
    ]
}

/// The loopback IPv4 address, in host order, that a number stands for.
#[inline(always)]
pub const fn numbered_token_address(number: u32) -> u32 {
    TOKEN_BASE | (number & TOKEN_MASK)
}

#[cfg(test)]
mod tests {
    use super::token_address;

    #[test]
    fn tokens_stay_inside_their_loopback_range() {
        for address in [0, 1, 0x0a4d_0001, 0xffff_ffff] {
            for port in [0, 1, 80, 15001, u16::MAX] {
                let token = token_address(address, port).to_be_bytes();
                assert_eq!(token[0], 127);
                assert!((64..128).contains(&token[1]));
            }
        }
    }

    #[test]
    fn neighbouring_destinations_get_different_tokens() {
        extern crate std;
        let tokens: std::collections::HashSet<u32> = (0..1000u32)
            .map(|n| token_address(0x0a4d_0000 + n / 10, 8000 + (n % 10) as u16))
            .collect();
        assert!(tokens.len() >= 999, "{} of 1000", tokens.len());
    }
}
