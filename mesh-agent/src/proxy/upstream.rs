//! Sockets to servers, made inside the pod so that the server sees the pod's own address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd as _,
    time::Duration,
};

use mesh_common::{SocketRole, token_address};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::{
    kernel::Maps,
    pods::{self, Netns},
};

/// A server that vanished without a word is noticed after about two minutes: the app's own
/// keep-alive only reaches the agent.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// An app may have asked for a large buffer of its own; what it would have held must not be lost here.
const DATAGRAM_BUFFER: usize = 1 << 20;

/// Whom a server takes for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeenAs {
    /// The pod, by the address that its app had bound, if it did.
    Pod(Option<IpAddr>),
    /// A client from outside.
    Client {
        /// Its end.
        client: SocketAddr,
        /// Where it wanted to go.
        local: SocketAddr,
    },
}

/// Connects to `server` from inside the pod.
pub async fn connect(
    netns: &Netns,
    maps: &Maps,
    server: SocketAddr,
    seen_as: SeenAs,
) -> io::Result<TcpStream> {
    match seen_as {
        SeenAs::Pod(source) => connect_out(netns, maps, server, source).await,
        SeenAs::Client { client, local } => {
            connect_to_server(netns, maps, server, client, local).await
        }
    }
}

async fn connect_out(
    netns: &Netns,
    maps: &Maps,
    destination: SocketAddr,
    source: Option<IpAddr>,
) -> io::Result<TcpStream> {
    let socket = stream(netns, destination)?;
    maps.mark_socket(socket.as_fd(), SocketRole::Upstream)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL),
    )?;
    if let Some(source) = source {
        // The port is chosen at connect, per destination.
        pods::choose_port_at_connect(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(destination)
        .await
}

/// Connects to a server in the pod, for `client`, which wanted `local`: the server sees both.
///
/// From loopback addresses that differ from client to client, so that a server can have more
/// connections than one address has ports; to an address of the pod's from that same address, by which
/// the kernel half knows that the connection comes from inside.
async fn connect_to_server(
    netns: &Netns,
    maps: &Maps,
    server: SocketAddr,
    client: SocketAddr,
    local: SocketAddr,
) -> io::Result<TcpStream> {
    let socket = stream(netns, server)?;
    maps.mark_inbound_socket(socket.as_fd(), client, local)?;
    let port = client.port();
    let source = match (server.ip(), client.ip()) {
        (IpAddr::V4(server), IpAddr::V4(client)) if server.is_loopback() => {
            Ipv4Addr::from(token_address(client.into(), port)).into()
        }
        (server, _) => server,
    };
    pods::choose_port_at_connect(&socket)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    TcpSocket::from_std_stream(socket.into())
        .connect(server)
        .await
}

fn stream(netns: &Netns, destination: SocketAddr) -> io::Result<Socket> {
    let socket = netns.enter(|| {
        Socket::new(
            Domain::for_address(destination),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )
    })?;
    socket.set_tcp_nodelay(true)?;
    // As the accepted sockets: an urgent byte stays in its place among the others.
    socket.set_out_of_band_inline(true)?;
    pods::reset_on_close(&socket)?;
    Ok(socket)
}

/// A datagram socket connected to `destination` from inside the pod: the kernel drops what others send
/// to it, and picks a random port.
pub fn datagrams(netns: &Netns, maps: &Maps, destination: SocketAddr) -> io::Result<UdpSocket> {
    let socket = netns.enter(|| {
        Socket::new(
            Domain::for_address(destination),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )
    })?;
    maps.mark_socket(socket.as_fd(), SocketRole::Upstream)?;
    setsockopt(&socket, RcvBufForce, &DATAGRAM_BUFFER)?;
    socket.connect(&destination.into())?;
    UdpSocket::from_std(socket.into())
}

/// Whether connecting failed for a cause in this machine: the operator can end it, the app cannot.
pub fn is_local_cause(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::EPERM
                | libc::EADDRNOTAVAIL
        )
    )
}
