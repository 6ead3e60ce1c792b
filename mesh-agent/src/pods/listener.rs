//! The agent's listeners inside a pod.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
};

use mesh_common::{OUTBOUND_PORT, SocketRole};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use thiserror::Error;
use tokio::net::TcpListener;

use super::{
    Netns, loopback,
    socket_options::{disable_fast_open, reset_on_close},
};
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
    /// Nothing can be redirected to the loopback interface (yet).
    #[error("{}", loopback_advice(*.0))]
    Loopback(loopback::LoopbackFault),
    /// The kernel said no.
    #[error("cannot listen inside the pod: {0}")]
    System(#[from] io::Error),
}

/// Outbound listeners, or which of them.
#[derive(Debug, Default)]
pub(super) struct Listeners<T> {
    pub ipv4: T,
    /// Only where the pod has IPv6.
    pub ipv6: T,
}

/// Opened listeners.
pub(super) type Opened = Listeners<Option<TcpListener>>;

impl Opened {
    /// Those that were opened.
    pub fn iter(&self) -> impl Iterator<Item = &TcpListener> {
        self.ipv4.iter().chain(&self.ipv6)
    }
}

/// Opens those listeners that are `wanted`, once the pod's loopback interface can be used. One for
/// IPv6 only where the pod has it.
pub(super) fn open(
    netns: &Netns,
    wanted: &Listeners<bool>,
    maps: &Maps,
) -> Result<Opened, ListenError> {
    let opened = netns.enter(|| {
        if let Some(fault) = loopback::fault()? {
            return Ok(Err(ListenError::Loopback(fault)));
        }
        Ok(Ok(Listeners {
            ipv4: wanted.ipv4.then(listen_ipv4).transpose()?,
            ipv6: wanted.ipv6.then(listen_ipv6).transpose()?.flatten(),
        }))
    });
    let sockets = match opened {
        Ok(sockets) => sockets?,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Err(ListenError::PortTaken {
                port: OUTBOUND_PORT,
            });
        }
        Err(error) => return Err(error.into()),
    };
    let served = |socket: Option<Socket>| {
        socket
            .map(|socket| {
                maps.mark_socket(socket.as_fd(), SocketRole::Listener)?;
                TcpListener::from_std(socket.into())
            })
            .transpose()
    };
    Ok(Listeners {
        ipv4: served(sockets.ipv4)?,
        ipv6: served(sockets.ipv6)?,
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

/// Each destination has a loopback address of its own (`mesh_common::token_address`), and a
/// connection from a bound IPv6 address goes to that same address. So the agent listens on the
/// wildcard address, with a filter that drops whatever did not come over the loopback interface:
/// from outside, the port looks as if nothing were there.
fn listen_ipv4() -> io::Result<Socket> {
    let socket = new_listener(Domain::IPV4)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, OUTBOUND_PORT)).into())?;
    listen(socket)
}

/// `None` where the pod has no IPv6: then nothing can connect over it either.
fn listen_ipv6() -> io::Result<Option<Socket>> {
    let socket = match new_listener(Domain::IPV6) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
        other => other?,
    };
    let probe = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    match probe.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return Ok(None),
        other => other?,
    }
    socket.set_only_v6(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, OUTBOUND_PORT)).into())?;
    listen(socket).map(Some)
}

fn listen(socket: Socket) -> io::Result<Socket> {
    socket.attach_filter(&LOOPBACK_ONLY)?;
    socket.listen(BACKLOG)?;
    // With server-side Fast Open (net.ipv4.tcp_fastopen=0x400) the agent's end would come to be
    // before the app's handshake completes, and not find the original destination.
    disable_fast_open(&socket)?;
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
