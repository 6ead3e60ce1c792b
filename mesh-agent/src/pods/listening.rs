//! The sockets that listen in a pod, as the kernel tells of them (sock_diag(7)). Servers that were
//! there before the agent are found so.
//!
//! Everything here acts on the namespace that the calling thread is in.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{
    Socket as NetlinkSocket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG,
};

use crate::kernel::Server;

/// As much as the kernel puts into one answer.
const ANSWER: usize = 32 << 10;

/// Every TCP socket that listens.
pub(super) fn listening() -> io::Result<Vec<Server>> {
    let mut found = dump(AF_INET, SocketId::new_v4())?;
    found.extend(dump(AF_INET6, SocketId::new_v6())?);
    Ok(found)
}

fn dump(family: u8, socket_id: SocketId) -> io::Result<Vec<Server>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id,
    });
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(request));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    let socket = NetlinkSocket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    let mut answer = Vec::with_capacity(ANSWER);
    loop {
        answer.clear();
        socket.recv(&mut answer, 0)?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            rest = rest
                .get(message.header.length as usize..)
                .unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    found.push(server(&response));
                }
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

fn server(response: &InetResponse) -> Server {
    let id = &response.header.socket_id;
    // Mapped addresses are those of IPv4.
    let address: IpAddr = match id.source_address {
        IpAddr::V6(address) => address
            .to_ipv4_mapped()
            .map_or(IpAddr::V6(address), IpAddr::V4),
        IpAddr::V4(address) => IpAddr::V4(address),
    };
    Server {
        address: SocketAddr::new(address, id.source_port),
        only_ipv6: response.nlas.contains(&Nla::SkV6Only(true)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_listener_is_found_as_long_as_it_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let is_found = || {
            listening()
                .unwrap()
                .iter()
                .any(|server| server.address == address)
        };
        assert!(is_found());
        drop(listener);
        assert!(!is_found());
    }

    #[test]
    fn one_for_ipv6_only_is_told_from_one_for_both() {
        for only_ipv6 in [true, false] {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
            socket.set_only_v6(only_ipv6).unwrap();
            socket
                .bind(&SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)).into())
                .unwrap();
            socket.listen(1).unwrap();
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            let found = listening().unwrap();
            let mut on_port = found.iter().filter(|server| server.address.port() == port);
            assert_eq!(
                on_port.next().map(|server| server.only_ipv6),
                Some(only_ipv6)
            );
        }
    }
}
