//! Can a pod be redirected to? Its loopback interface must be up and have all of 127.0.0.0/8.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use nix::{errno::Errno, net::if_::InterfaceFlags};
use socket2::{Domain, Socket, Type};

use super::socket_options::interface_flags;

/// One of the addresses that connections are redirected to (`mesh_common::token_address`).
const REDIRECTED_TO: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 1);
/// Connecting a datagram socket sends nothing, so nobody needs to be there.
const ANY_PORT: u16 = 9;

/// What is wrong with the loopback interface of the namespace that this thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopbackFault {
    /// It is down, as in every namespace fresh from `ip netns add`.
    Down,
    /// It lacks addresses of 127.0.0.0/8.
    Addresses,
}

/// Looks for a fault.
pub(super) fn fault() -> io::Result<Option<LoopbackFault>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // Routes would not tell: those of an interface that was taken down are still found. And a list of all interfaces
    // (netlink) would wait for whoever changes one, in any network namespace.
    let is_up = match interface_flags(&socket, c"lo") {
        // Somebody gave it another name.
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => false,
        flags => flags?.contains(InterfaceFlags::IFF_UP),
    };
    if !is_up {
        Ok(Some(LoopbackFault::Down))
    } else if !has_the_addresses(&socket)? {
        Ok(Some(LoopbackFault::Addresses))
    } else {
        Ok(None)
    }
}

/// Binding would not tell where `net.ipv4.ip_nonlocal_bind` is set. Connecting alone would not
/// either: without loopback it goes the way of the default route, but then from another address.
fn has_the_addresses(socket: &Socket) -> io::Result<bool> {
    let destination = SocketAddr::from((REDIRECTED_TO, ANY_PORT));
    if socket.connect(&destination.into()).is_err() {
        return Ok(false);
    }
    let source = socket.local_addr()?.as_socket();
    Ok(source.is_some_and(|source| source.ip().is_loopback()))
}
