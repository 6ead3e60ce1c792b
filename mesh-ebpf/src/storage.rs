//! Access to `sk_storage_map` from every program type; the library's wrapper only takes sock_addr.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::bpf_sk_storage_get,
};
use mesh_common::{SocketRole, SocketState};

use crate::maps::SK_STORAGE_MAP;

#[inline(always)]
fn lookup(socket: *mut bpf_sock, flags: u64) -> Option<&'static mut SocketState> {
    // SAFETY: the helper takes the map and a socket from a context or a lookup, which the verifier
    // checks, and returns null or storage that lives as long as the program runs.
    unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(&SK_STORAGE_MAP).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            flags,
        )
        .cast::<SocketState>()
        .as_mut()
    }
}

/// The state of a socket, if it has one.
#[inline(always)]
pub fn get(socket: *mut bpf_sock) -> Option<&'static mut SocketState> {
    lookup(socket, 0)
}

/// The state of a socket, zeroed if it is new; `None` when the kernel has no memory.
#[inline(always)]
pub fn get_or_create(socket: *mut bpf_sock) -> Option<&'static mut SocketState> {
    lookup(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

/// Whether the socket has this role.
#[inline(always)]
pub fn has_role(socket: *mut bpf_sock, role: SocketRole) -> bool {
    get(socket).is_some_and(|state| state.role == role as u16)
}
