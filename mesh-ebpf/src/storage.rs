//! What is stored at sockets.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use mesh_common::{DatagramState, SocketRole, SocketState};

use crate::{
    maps::{SK_STORAGE_MAP, UDP_STORAGE_MAP},
    socket_storage::lookup,
};

/// The state of a socket, if it has one.
#[inline(always)]
pub fn get(socket: *mut bpf_sock) -> Option<&'static mut SocketState> {
    lookup(&SK_STORAGE_MAP, socket, 0)
}

/// The state of a socket, zeroed if it is new; `None` when the kernel has no memory.
#[inline(always)]
pub fn get_or_create(socket: *mut bpf_sock) -> Option<&'static mut SocketState> {
    lookup(
        &SK_STORAGE_MAP,
        socket,
        u64::from(BPF_SK_STORAGE_GET_F_CREATE),
    )
}

/// Whether the socket has this role.
#[inline(always)]
pub fn has_role(socket: *mut bpf_sock, role: SocketRole) -> bool {
    get(socket).is_some_and(|state| state.role == role as u16)
}

/// The datagram flows of a socket, if it has any.
#[inline(always)]
pub fn datagrams(socket: *mut bpf_sock) -> Option<&'static mut DatagramState> {
    lookup(&UDP_STORAGE_MAP, socket, 0)
}

/// The datagram flows of a socket, none if it is new; `None` when the kernel has no memory.
#[inline(always)]
pub fn datagrams_or_create(socket: *mut bpf_sock) -> Option<&'static mut DatagramState> {
    lookup(
        &UDP_STORAGE_MAP,
        socket,
        u64::from(BPF_SK_STORAGE_GET_F_CREATE),
    )
}
