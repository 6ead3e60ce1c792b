//! Access to what is stored at sockets from every program type; the library's wrapper only takes sock_addr.

use aya_ebpf::{bindings::bpf_sock, btf_maps::SkStorage, helpers::bpf_sk_storage_get};

/// What `map` has for the socket. With `BPF_SK_STORAGE_GET_F_CREATE`, zeroed if it is new, and `None`
/// only when the kernel has no memory.
#[inline(always)]
#[expect(
    clippy::mut_from_ref,
    reason = "the map is a name for the kernel, not where the storage is"
)]
pub fn lookup<T>(
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
