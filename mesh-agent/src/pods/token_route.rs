//! The route that makes the IPv6 addresses which stand for destinations local to a pod, as all of
//! 127.0.0.0/8 is by itself.
//!
//! Everything here acts on the namespace that the calling thread is in.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
};

use mesh_common::{TOKEN_PREFIX6, token_address6};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::{
    Socket as NetlinkSocket, SocketAddr as NetlinkAddress, protocols::NETLINK_ROUTE,
};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Socket, Type};

/// `RT_TABLE_LOCAL` of include/uapi/linux/rtnetlink.h.
const LOCAL_TABLE: u8 = 255;
/// Connecting a datagram socket sends nothing, so nobody needs to be there.
const ANY_PORT: u16 = 9;

/// Makes the addresses local unless they are. `false` where the pod has no IPv6, or does not let
/// itself be changed.
pub(super) fn ensure() -> io::Result<bool> {
    if is_there()? {
        return Ok(true);
    }
    let added = request(
        RouteNetlinkMessage::NewRoute(route()?),
        NLM_F_CREATE | NLM_F_REPLACE,
    );
    if let Err(error) = added {
        tracing::debug!("cannot make the IPv6 addresses of destinations local: {error}");
        return Ok(false);
    }
    is_there()
}

/// Takes the route back; fine if it is not there.
pub(super) fn remove() -> io::Result<()> {
    match request(RouteNetlinkMessage::DelRoute(route()?), 0) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Whether such an address is reached, and from `[::1]`, as apps are that have bound no other.
fn is_there() -> io::Result<bool> {
    let socket = match Socket::new(Domain::IPV6, Type::DGRAM, None) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(false),
        other => other?,
    };
    let token = SocketAddr::from((Ipv6Addr::from(token_address6(0)), ANY_PORT));
    if socket.connect(&token.into()).is_err() {
        return Ok(false);
    }
    let source = socket.local_addr()?.as_socket();
    Ok(source.is_some_and(|source| source.ip() == Ipv6Addr::LOCALHOST))
}

fn route() -> io::Result<RouteMessage> {
    let header = RouteHeader {
        address_family: AddressFamily::Inet6,
        destination_prefix_length: 8 * TOKEN_PREFIX6.len() as u8,
        table: LOCAL_TABLE,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    let mut route = RouteMessage::default();
    route.header = header;
    route.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(token_address6(0).into())),
        RouteAttribute::Oif(if_nametoindex("lo")?),
        RouteAttribute::PrefSource(RouteAddress::Inet6(Ipv6Addr::LOCALHOST)),
    ];
    Ok(route)
}

/// Sends a request and waits for what the kernel says to it.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    let socket = NetlinkSocket::new(NETLINK_ROUTE)?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
