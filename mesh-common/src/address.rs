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
    // Finaliser of MurmurHash3 (public domain, A. Appleby): every input bit reaches every output bit.
    let mut hash = (address as u64) << 16 | port as u64;
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    TOKEN_BASE | (hash as u32 & TOKEN_MASK)
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
