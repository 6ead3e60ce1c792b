//! The maps. All have BTF types, so that `bpftool map dump` prints fields.

use core::intrinsics::AtomicOrdering;

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, RingBuf, SkStorage},
    macros::btf_map,
};
use mesh_common::{DatagramState, Event, ExclusionData, InboundPeer, Origin, OriginKey};

pub use crate::{
    shared_maps::PODS,
    socket_maps::{SK_STORAGE_MAP, count},
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Where each socket's captured datagrams go; lives and dies with the socket.
#[btf_map(name = "udp_storage_map")]
pub static UDP_STORAGE_MAP: SkStorage<DatagramState> = SkStorage::new();

/// Original destinations of redirected connections. Never an LRU map: that evicts live ones.
/// The loader sets the real capacity.
#[btf_map(name = "origin_dst_map")]
pub static ORIGIN_DST_MAP: HashMap<OriginKey, Origin, 262_144, NO_PREALLOC> = HashMap::new();

/// Entries in `origin_dst_map` now: lets connect see that it is full before redirecting.
#[btf_map(name = "origin_count")]
pub static ORIGIN_COUNT: Array<u64, 1> = Array::new();

/// Whom the agent's connections to servers in pods are for, until they are accepted.
#[btf_map(name = "inbound_peers")]
pub static INBOUND_PEERS: HashMap<OriginKey, InboundPeer, 65_536, NO_PREALLOC> = HashMap::new();

/// Destinations that are let through.
#[btf_map(name = "exclusions")]
pub static EXCLUSIONS: LpmTrie<ExclusionData, u32, 65_536> = LpmTrie::new();

/// Rare events for the log.
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<Event, 65_536> = RingBuf::new();

/// Entries that `origin_dst_map` may hold before connects count it as full; set by the loader to a
/// little below its real capacity, for the handshakes under way.
#[unsafe(no_mangle)]
pub static ORIGIN_LIMIT: Global<u64> = Global::new(260_000);

/// Whether `origin_dst_map` has no room for another connection.
#[inline(always)]
pub fn origins_full() -> bool {
    // SAFETY: reading a word that others add to; a stale value is as good.
    ORIGIN_COUNT
        .get_ptr_mut(0)
        .is_some_and(|value| unsafe { core::ptr::read_volatile(value) } >= ORIGIN_LIMIT.load())
}

/// Notes that `origin_dst_map` has one entry more.
#[inline(always)]
pub fn origin_added() {
    add_to_origin_count(1);
}

/// Notes that `origin_dst_map` has one entry less.
#[inline(always)]
pub fn origin_removed() {
    add_to_origin_count(u64::MAX);
}

#[inline(always)]
fn add_to_origin_count(difference: u64) {
    if let Some(value) = ORIGIN_COUNT.get_ptr_mut(0) {
        // SAFETY: the slot is 8-aligned and lives as long as the map. The intrinsic, because the
        // bpf target has atomic addition but not the compare-and-swap that `AtomicU64` asks for.
        unsafe {
            core::intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(
                value, difference,
            );
        }
    }
}
