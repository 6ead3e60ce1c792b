//! Maps that all programs on the cgroup share, those that measure included.

use aya_ebpf::{
    btf_maps::{PerCpuArray, SkStorage},
    macros::btf_map,
};
use mesh_common::{Counter, SocketState};

/// What each socket is to the mesh; lives and dies with the socket.
#[btf_map(name = "sk_storage_map")]
pub static SK_STORAGE_MAP: SkStorage<SocketState> = SkStorage::new();

/// One counter for every way that a connect can go.
#[btf_map(name = "counters")]
pub static COUNTERS: PerCpuArray<u64, 32> = PerCpuArray::new();

/// Adds one to `counter`.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's own. A program that interrupts this one on the same CPU
        // can lose a count, never corrupt it.
        unsafe { *value += 1 };
    }
}
