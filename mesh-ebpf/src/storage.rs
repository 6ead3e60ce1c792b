//! Access to what is stored at sockets from every program type; the library's wrapper only takes sock_addr.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::bpf_sk_storage_get,
};
use mesh_common::{DatagramState, SocketRole, SocketState};

use crate::maps::{SK_STORAGE_MAP, UDP_STORAGE_MAP};

#[inline(always)]
#[expect(
    clippy::mut_from_ref,
    reason = "the map is a name for the kernel, not where the storage is"
)]
fn lookup<T>(
    map: &'static SkStorage<T>,
    socket: *mut bpf_sock,
    flags: u64,
) -> Option<&'static mut T> {
    // SAFETY: the helper takes the map and a socket from a context or a lookup, which the verifier
    // checks, and returns null or storage that lives as long as the program runs.
    unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(map).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            flags,
        )
        .cast::<T>()
        .as_mut()
    }
}

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
