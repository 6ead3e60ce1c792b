//! The agent's listeners inside a pod.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
};

use mesh_common::{OUTBOUND_PORT, SocketRole};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use thiserror::Error;

use super::Netns;
use super::reset_on_close;
use crate::kernel::Maps;

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why the agent cannot listen in a pod.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Something in the pod has the port.
    #[error(
        "port {port} is already taken inside the pod by another program; the agent needs it \
         (see `ip netns exec NAME ss -ltnp`)"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The loopback interface is down, so nothing can be redirected to it.
    #[error("the pod's loopback interface is down; bring it up: ip -n NAME link set lo up")]
    LoopbackDown,
    /// The kernel said no.
    #[error("cannot listen inside the pod: {0}")]
    System(#[from] io::Error),
}

/// Opens the outbound listeners: IPv4 always, IPv6 where the pod has it.
pub fn open(netns: &Netns, maps: &Maps) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let sockets = netns.enter(|| {
        if !loopback_is_up()? {
            return Ok(None);
        }
        let ipv4 = listen_ipv4()?;
        let ipv6 = listen_ipv6()?;
        Ok(Some(
            [Some(ipv4), ipv6]
                .into_iter()
                .flatten()
                .collect::<Vec<Socket>>(),
        ))
    });
    let sockets = match sockets {
        Ok(Some(sockets)) => sockets,
        Ok(None) => return Err(ListenError::LoopbackDown),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Err(ListenError::PortTaken {
                port: OUTBOUND_PORT,
            });
        }
        Err(error) => return Err(error.into()),
    };
    for socket in &sockets {
        maps.mark_socket(socket.as_fd(), SocketRole::Listener)?;
    }
    Ok(sockets.into_iter().map(Into::into).collect())
}

/// A namespace fresh from `ip netns add` has lo down. Trying an address of it would not tell: then
/// it goes the way of the default route.
fn loopback_is_up() -> io::Result<bool> {
    Ok(getifaddrs()?.any(|interface| {
        interface.interface_name == "lo" && interface.flags.contains(InterfaceFlags::IFF_UP)
    }))
}

/// Listens on every address of 127.0.0.0/8: each destination has one of its own
/// (`mesh_common::token_address`). That takes the wildcard address, so a filter drops what did not
/// come to loopback: from outside, the port looks as if nothing were there.
fn listen_ipv4() -> io::Result<Socket> {
    let socket = new_listener(Domain::IPV4)?;
    socket.attach_filter(&LOOPBACK_ONLY)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, OUTBOUND_PORT)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// `None` where the pod has no IPv6: then nothing can connect over it either.
fn listen_ipv6() -> io::Result<Option<Socket>> {
    let socket = match new_listener(Domain::IPV6) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
        other => other?,
    };
    socket.set_only_v6(true)?;
    match socket.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, OUTBOUND_PORT)).into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return Ok(None),
        other => other?,
    }
    socket.listen(BACKLOG)?;
    Ok(Some(socket))
}

fn new_listener(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // An earlier agent's closed connections must not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // These are inherited by accepted sockets, which saves calls for each. A proxy must not add
    // Nagle's delay. An urgent byte would be lost unless it is read in its place.
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    reset_on_close(&socket)?;
    Ok(socket)
}

/// Classic BPF: accept the packet if its IPv4 destination is in 127.0.0.0/8, else drop it.
static LOOPBACK_ONLY: [SockFilter; 4] = {
    const LOAD_BYTE_ABSOLUTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_NET_OFF` of include/uapi/linux/filter.h: offsets from the network header.
    const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
    const DESTINATION: u32 = 16;
    [
        SockFilter::new(LOAD_BYTE_ABSOLUTE, 0, 0, NETWORK_HEADER + DESTINATION),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 127),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};
