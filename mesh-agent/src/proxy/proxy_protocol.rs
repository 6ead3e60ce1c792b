//! The header that tells a server whom a connection is for: PROXY protocol, version 2
//! (the HAProxy project's doc/proxy-protocol.txt, section 2.2).

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header of a connection from `client` to `local`.
pub(super) fn header(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    let family = match (client.ip(), local.ip()) {
        (IpAddr::V4(client), IpAddr::V4(local)) => {
            addresses.extend(client.octets());
            addresses.extend(local.octets());
            TCP_OVER_IPV4
        }
        (client, local) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            addresses.extend(octets(client));
            addresses.extend(octets(local));
            TCP_OVER_IPV6
        }
    };
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(local.port().to_be_bytes());
    let mut header = Vec::with_capacity(52);
    header.extend(SIGNATURE);
    header.extend([VERSION_AND_COMMAND, family]);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_header_is_that_of_the_specification() {
        let header = header(
            "192.0.2.7:40000".parse().unwrap(),
            "10.77.0.10:80".parse().unwrap(),
        );
        assert_eq!(
            header,
            [
                0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x21, 0x11,
                0, 12, 192, 0, 2, 7, 10, 77, 0, 10, 0x9C, 0x40, 0, 80
            ]
        );
    }

    #[test]
    fn an_ipv6_header_has_52_bytes() {
        let header = header(
            "[fd00::7]:1".parse().unwrap(),
            "[fd00::a]:2".parse().unwrap(),
        );
        assert_eq!((header.len(), header[13], header[15]), (52, 0x21, 36));
        assert_eq!(header[48..], [0, 1, 0, 2]);
    }
}
