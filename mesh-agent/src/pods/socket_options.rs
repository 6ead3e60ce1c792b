//! Socket options that no library wraps, what an interface is set to, and waiting for a listener.
//!
//! `unsafe`: getsockopt(2), setsockopt(2) and ioctl(2) with their raw pointers; the runtime trusts that a descriptor
//! stays open as long as the object that reports it.
#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    io, mem,
    net::TcpListener,
    os::fd::{AsFd, AsRawFd as _},
    time::Duration,
};

use nix::net::if_::InterfaceFlags;
use socket2::SockRef;
use tokio::io::{Interest, unix::AsyncFd};

/// Cookie of the network namespace that `socket` lives in (`SO_NETNS_COOKIE`, Linux 5.14).
pub fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: both pointers are live and the length is that of the value.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What the interface of this name is set to, in the network namespace that `socket` lives in (`SIOCGIFFLAGS`).
pub fn interface_flags(socket: &impl AsFd, name: &CStr) -> io::Result<InterfaceFlags> {
    // SAFETY: all zeros is a request about an interface without a name.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.count_bytes() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *place = libc::c_char::from_ne_bytes([*byte]);
    }
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer is live, and the command reads a name and writes flags there.
    let result = unsafe { libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just written this field.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(InterfaceFlags::from_bits_retain(
        flags.cast_unsigned().into(),
    ))
}

/// Lets bind take an address only; connect chooses the port per destination
/// (`IP_BIND_ADDRESS_NO_PORT`), so that one source address does not run out of ports.
pub fn choose_port_at_connect(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// A listener on this thread's runtime, whose connections are not: tokio's own ties them to it.
pub fn watched(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // SAFETY: a `TcpListener` owns its descriptor and never exchanges it.
    let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// Takes no data with a SYN, whatever `net.ipv4.tcp_fastopen` says; to be called after listen.
pub fn disable_fast_open(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 0)
}

fn set(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer is live and the length is that of the value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes every close a reset, also the one that the kernel does when the agent dies: neither side
/// may take a transfer that was cut off for a whole one. See [`close_in_order`].
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(&socket.as_fd()).set_linger(Some(Duration::ZERO))
}

/// Takes [`reset_on_close`] back, once the end of both directions has been passed on.
pub fn close_in_order(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(&socket.as_fd()).set_linger(None)
}

/// A socket's send buffer. Both counts are the kernel's own and include its overhead.
#[derive(Clone, Copy, Debug)]
pub struct SendBuffer {
    /// Bytes it may hold.
    pub size: u32,
    /// Bytes it holds: written, and not acknowledged by the peer. 0 once the connection is gone.
    pub queued: u32,
}

/// How full the send buffer of `socket` is (`SO_MEMINFO`, Linux 4.12).
pub fn send_buffer(socket: &impl AsFd) -> io::Result<SendBuffer> {
    /// `SK_MEMINFO_*` of include/uapi/linux/sock_diag.h.
    const SIZE: usize = 3;
    const QUEUED: usize = 5;
    let mut info = [0_u32; 9];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: both pointers are live and the length is that of the value.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(SendBuffer {
            size: info[SIZE],
            queued: info[QUEUED],
        })
    } else {
        Err(io::Error::last_os_error())
    }
}
