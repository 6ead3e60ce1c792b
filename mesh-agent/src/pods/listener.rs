//! The agent's listeners inside a pod.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd as _,
};

use mesh_common::{DATAGRAM_PORT, INBOUND_PORT, OUTBOUND_PORT, SocketRole};
use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBufForce},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use thiserror::Error;

use super::{
    Netns, loopback,
    socket_options::{disable_fast_open, reset_on_close},
};
use crate::kernel::{KernelError, Maps};

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why the agent cannot listen in a pod.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Something in the pod has the port.
    #[error(
        "port {port} is already taken inside the pod by another program; the agent needs it \
         (see `ip netns exec NAME ss -ltunp`)"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// Nothing can be redirected to the loopback interface (yet).
    #[error("{}", loopback_advice(*.0))]
    Loopback(loopback::LoopbackFault),
    /// The kernel said no.
    #[error("cannot listen inside the pod: {0}")]
    System(#[from] io::Error),
    /// The kernel half takes no listener.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// One for each address family.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Families<T> {
    pub ipv4: T,
    /// Only where the pod has IPv6.
    pub ipv6: T,
}

/// Which sockets to open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub streams: Families<bool>,
    pub inbound: Families<bool>,
    pub datagrams: Families<bool>,
}

/// Opened sockets.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub streams: Families<Option<TcpListener>>,
    pub inbound: Families<Option<TcpListener>>,
    pub datagrams: Families<Option<UdpSocket>>,
    /// Whether the pod has IPv6.
    pub has_ipv6: bool,
}

impl<T> Families<Option<T>> {
    fn try_map<U, E>(self, map: impl Fn(T) -> Result<U, E>) -> Result<Families<Option<U>>, E> {
        Ok(Families {
            ipv4: self.ipv4.map(&map).transpose()?,
            ipv6: self.ipv6.map(&map).transpose()?,
        })
    }
}

impl Opened {
    /// Where those that were opened are.
    pub fn addresses(&self) -> impl Iterator<Item = io::Result<SocketAddr>> {
        let streams = self.streams.ipv4.iter().chain(&self.streams.ipv6);
        let inbound = self.inbound.ipv4.iter().chain(&self.inbound.ipv6);
        let datagrams = self.datagrams.ipv4.iter().chain(&self.datagrams.ipv6);
        streams
            .chain(inbound)
            .map(TcpListener::local_addr)
            .chain(datagrams.map(UdpSocket::local_addr))
    }
}

/// Opens those sockets that are wanted, once the pod's loopback interface can be used. Those for
/// IPv6 only where the pod has it.
pub(super) fn open(netns: &Netns, wanted: Wanted, maps: &Maps) -> Result<Opened, ListenError> {
    let (sockets, has_ipv6) = netns.enter(|| {
        if let Some(fault) = loopback::fault()? {
            return Ok(Err(ListenError::Loopback(fault)));
        }
        let has_ipv6 = has_ipv6()?;
        let sockets = (|| {
            Ok((
                opened(wanted.streams, has_ipv6, OUTBOUND_PORT, |domain| {
                    listener(domain, OUTBOUND_PORT, &LOOPBACK_ONLY)
                })?,
                opened(wanted.inbound, has_ipv6, INBOUND_PORT, |domain| {
                    listener(domain, INBOUND_PORT, &STEERED_ONLY)
                })?,
                opened(wanted.datagrams, has_ipv6, DATAGRAM_PORT, datagrams_of)?,
            ))
        })();
        Ok(sockets.map(|sockets| (sockets, has_ipv6)))
    })??;
    let (streams, inbound, datagrams) = sockets;
    let stream = |socket: Socket| {
        maps.mark_socket(socket.as_fd(), SocketRole::Listener)?;
        Ok::<TcpListener, io::Error>(socket.into())
    };
    let inbound = inbound.try_map(stream)?;
    for (listener, is_ipv4) in [(&inbound.ipv4, true), (&inbound.ipv6, false)] {
        if let Some(listener) = listener {
            maps.set_inbound_listener(netns.cookie(), listener.as_fd(), is_ipv4)?;
        }
    }
    Ok(Opened {
        streams: streams.try_map(stream)?,
        inbound,
        datagrams: datagrams.try_map(|socket| {
            maps.mark_socket(socket.as_fd(), SocketRole::Listener)?;
            Ok::<UdpSocket, io::Error>(socket.into())
        })?,
        has_ipv6,
    })
}

fn opened(
    wanted: Families<bool>,
    has_ipv6: bool,
    port: u16,
    open: impl Fn(Domain) -> io::Result<Socket>,
) -> Result<Families<Option<Socket>>, ListenError> {
    let open = |wanted: bool, domain| wanted.then(|| taken(open(domain), port)).transpose();
    Ok(Families {
        ipv4: open(wanted.ipv4, Domain::IPV4)?,
        ipv6: open(wanted.ipv6 && has_ipv6, Domain::IPV6)?,
    })
}

fn taken<T>(opened: io::Result<T>, port: u16) -> Result<T, ListenError> {
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortTaken { port },
        _ => error.into(),
    })
}

const fn loopback_advice(fault: loopback::LoopbackFault) -> &'static str {
    match fault {
        loopback::LoopbackFault::Down => {
            "the pod's loopback interface lo is down; bring it up: ip -n NAME link set lo up"
        }
        loopback::LoopbackFault::Addresses => {
            "the pod's loopback interface lo does not have all of 127.0.0.0/8, which connections \
             are redirected to; add it: ip -n NAME addr add 127.0.0.1/8 dev lo"
        }
    }
}

/// A listener on the wildcard address, with a filter for what may come to it: from elsewhere, the port
/// looks as if nothing were there.
///
/// Each destination has a loopback address of its own (`mesh_common::token_address`), and a
/// connection from a bound IPv6 address goes to that same address. What is steered to the inbound
/// listener was sent to an address of the pod and the port of a server.
fn listener(domain: Domain, port: u16, filter: &[SockFilter]) -> io::Result<Socket> {
    let socket = new_listener(domain)?;
    let address: IpAddr = if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    socket.bind(&SocketAddr::from((address, port)).into())?;
    socket.attach_filter(filter)?;
    socket.listen(BACKLOG)?;
    // With server-side Fast Open (net.ipv4.tcp_fastopen=0x400) the agent's end would come to be
    // before the app's handshake completes, and not find the original destination.
    disable_fast_open(&socket)?;
    Ok(socket)
}

/// Where the pod has no IPv6 nothing can connect over it either.
fn has_ipv6() -> io::Result<bool> {
    let probe = match Socket::new(Domain::IPV6, Type::DGRAM, None) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(false),
        other => other?,
    };
    match probe.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(false),
        other => other.map(|()| true),
    }
}

/// All datagrams of a pod come to one socket, and may come at once.
const DATAGRAM_BUFFER: usize = 4 << 20;

/// The socket that captured datagrams come to. Each says to which address it was sent, which tells
/// where the app wanted it to go.
fn datagrams_of(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    let address: IpAddr = if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        // Answers come from addresses that are local, but of no interface.
        socket.set_freebind_v6(true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
        Ipv4Addr::UNSPECIFIED.into()
    };
    setsockopt(&socket, RcvBufForce, &DATAGRAM_BUFFER)?;
    socket.attach_filter(&LOOPBACK_ONLY)?;
    socket.bind(&SocketAddr::from((address, DATAGRAM_PORT)).into())?;
    Ok(socket)
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

/// Classic BPF: accept the packet if it came over the loopback interface, else drop it.
static LOOPBACK_ONLY: [SockFilter; 4] = {
    const LOAD_WORD_ABSOLUTE: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_IFINDEX` of include/uapi/linux/filter.h.
    const INTERFACE_INDEX: u32 = -0x1000_i32 as u32 + 8;
    /// `LOOPBACK_IFINDEX` of include/net/flow.h: the same in every namespace.
    const LOOPBACK: u32 = 1;
    [
        SockFilter::new(LOAD_WORD_ABSOLUTE, 0, 0, INTERFACE_INDEX),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, LOOPBACK),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};

/// Classic BPF, on the TCP header: drop the packet if it was sent to the agent's own port.
static STEERED_ONLY: [SockFilter; 4] = {
    const LOAD_HALF_ABSOLUTE: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const DESTINATION_PORT: u32 = 2;
    [
        SockFilter::new(LOAD_HALF_ABSOLUTE, 0, 0, DESTINATION_PORT),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, INBOUND_PORT as u32),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
};
