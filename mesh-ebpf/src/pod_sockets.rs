//! Measures pods' own sockets whose connections do not go through the agent, and adds up what it finds
//! in `pod_sockets`. An object of its own: it is loaded only when that is asked for, and goes with the
//! agent.
//!
//! Invariant: it only looks. Whatever it returns, the connection goes on as it would without it.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)]

#[allow(dead_code, reason = "the programs that redirect use the rest")]
mod address;
#[allow(dead_code, reason = "the programs that redirect use the rest")]
mod origin;
mod shared_maps;
mod socket_maps;
mod socket_storage;
mod tx_stamps;

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{
        BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE,
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RETRANS_CB, BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTT_CB,
        BPF_SOCK_OPS_RTT_CB_FLAG, bpf_sock,
    },
    btf_maps::{HashMap, SkStorage},
    helpers::{bpf_get_netns_cookie, bpf_jiffies64, bpf_ktime_get_ns},
    macros::{btf_map, sock_ops},
    programs::SockOpsContext,
};
use core::intrinsics::AtomicOrdering;
use mesh_common::{
    Counter, DURATION_BUCKETS, Durations, InboundKey, Pod, PodSocketKey, PodSocketState,
    PodSocketStats, SocketRole, capture, pod_socket_direction,
};

use address::{bytes, is_local, is_mapped, mapped, same};
use shared_maps::{INBOUND_PORTS, PODS};
use socket_maps::{SK_STORAGE_MAP, count};
use socket_storage::lookup;

/// Declares that all helpers may be used; the code itself is MIT OR Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// What was measured. Never an LRU map: that forgets what is in use.
#[btf_map(name = "pod_sockets")]
static POD_SOCKETS: HashMap<PodSocketKey, PodSocketStats, 2048, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// The sockets that are measured; lives and dies with the socket.
#[btf_map(name = "pod_sock_state")]
static POD_SOCK_STATE: SkStorage<PodSocketState> = SkStorage::new();

/// Whether what sockets send is timed too, 0 or 1; set by the loader.
#[unsafe(no_mangle)]
static STAMPS: Global<u64> = Global::new(0);

/// A new entry. Too large for the stack.
static NOTHING: PodSocketStats = PodSocketStats {
    connections: 0,
    retransmits: 0,
    smoothed: 0,
    last_at: 0,
    round_trip: NO_DURATIONS,
    to_device: NO_DURATIONS,
    to_acknowledged: NO_DURATIONS,
};
const NO_DURATIONS: Durations = Durations {
    sum: 0,
    buckets: [0; DURATION_BUCKETS],
};

/// What sockops programs return; anything else makes the kernel ignore the reply.
const OK: u32 = 1;
const NANOSECONDS_PER_MICROSECOND: u64 = 1000;
/// TCP keeps eight times the smoothed round-trip time (include/linux/tcp.h).
const SMOOTHED_BITS: u32 = 3;

#[sock_ops]
pub fn mesh_pod_socks(ctx: SockOpsContext) -> u32 {
    // SAFETY: readable in every sockops program; null is checked.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return OK;
    }
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => begin(&ctx, socket, true),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => begin(&ctx, socket, false),
        BPF_SOCK_OPS_RTT_CB => {
            if let Some(state) = measured(socket) {
                round_trip(&ctx, state);
            }
        }
        BPF_SOCK_OPS_RETRANS_CB => {
            // The third is what came of sending, 0 if it was sent.
            if ctx.arg(2) == 0
                && let Some(state) = measured(socket)
                && let Some(stats) = stats(state)
            {
                add(&raw mut stats.retransmits, u64::from(ctx.arg(1)));
            }
        }
        op if STAMPS.load() != 0 => {
            if tx_stamps::is_one(op)
                && let Some(state) = measured(socket)
            {
                tx_stamps::stamp(&ctx, op, state);
            }
        }
        _ => {}
    }
    OK
}

/// A connection is established: it is measured from now on, if it is one of an enrolled pod and does
/// not go through the agent.
#[inline(always)]
fn begin(ctx: &SockOpsContext, socket: *mut bpf_sock, is_outbound: bool) {
    // SAFETY: the helper takes this program's context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: entries are freed after an RCU grace period, which this program runs within.
    let Some(pod) = (unsafe { PODS.get(netns_cookie) }) else {
        return;
    };
    if is_of_the_mesh(socket) {
        return;
    }
    let (address, port) = origin::remote(ctx);
    let (local_address, local_port) = origin::local(ctx);
    // Nothing of the network is in these: an app and the agent, or an app and its own server.
    if is_local(&address) || same(&address, &local_address) {
        return;
    }
    let key = if is_outbound {
        PodSocketKey {
            netns_cookie,
            address: bytes(address),
            port: u32::from(port),
            direction: pod_socket_direction::OUTBOUND,
        }
    } else {
        if is_steered(pod, netns_cookie, &local_address, local_port) {
            return;
        }
        PodSocketKey {
            netns_cookie,
            address: [0; 16],
            port: u32::from(local_port),
            direction: pod_socket_direction::INBOUND,
        }
    };
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    let Some(state) = lookup(&POD_SOCK_STATE, socket, create) else {
        return;
    };
    state.key = key;
    if let Some(stats) = stats(state) {
        add(&raw mut stats.connections, 1);
    }
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG;
    // Refused flags are those of a newer kernel than this one; these are as old as 5.3.
    let _accepted = ctx.set_cb_flags(flags as i32);
    if STAMPS.load() != 0 {
        tx_stamps::ask_for(ctx, state);
    }
}

/// Whether the socket is the agent's own, or connected to it.
#[inline(always)]
fn is_of_the_mesh(socket: *mut bpf_sock) -> bool {
    lookup(&SK_STORAGE_MAP, socket, 0).is_some_and(|state| {
        state.role != SocketRole::None as u16 && state.role != SocketRole::InboundBound as u16
    })
}

/// Whether connections to this address and port of the pod are given to the agent.
#[inline(always)]
fn is_steered(pod: &Pod, netns_cookie: u64, address: &address::Words, port: u16) -> bool {
    if u32::from(port) == pod.proxy_port {
        return true;
    }
    if pod.capture & capture::INBOUND == 0 {
        return false;
    }
    is_captured(netns_cookie, address, port)
        || is_mapped(address) && is_captured(netns_cookie, &mapped(0), port)
        || is_captured(netns_cookie, &[0; 4], port)
}

#[inline(always)]
fn is_captured(netns_cookie: u64, address: &address::Words, port: u16) -> bool {
    let key = InboundKey::new(netns_cookie, bytes(*address), port);
    // SAFETY: entries are freed after an RCU grace period, which this program runs within.
    unsafe { INBOUND_PORTS.get(key) }.is_some_and(|server| server.listeners != 0)
}

/// What is known of a socket that is measured.
#[inline(always)]
fn measured(socket: *mut bpf_sock) -> Option<&'static mut PodSocketState> {
    lookup(&POD_SOCK_STATE, socket, 0)
}

/// The kernel has measured a round-trip time, which it does once for each flight of segments. In a fast
/// network that is tens of thousands of times a second: one in a tick is enough.
#[inline(always)]
fn round_trip(ctx: &SockOpsContext, state: &mut PodSocketState) {
    // SAFETY: no arguments.
    let tick = unsafe { bpf_jiffies64() };
    if state.round_trip_tick == tick {
        return;
    }
    state.round_trip_tick = tick;
    let Some(stats) = stats(state) else {
        return;
    };
    // Both in microseconds. Kernels before 6.10 give neither.
    let (measured, smoothed) = (ctx.arg(0), ctx.arg(1));
    if measured != 0 || smoothed != 0 {
        record(
            &raw mut stats.round_trip,
            u64::from(measured) * NANOSECONDS_PER_MICROSECOND,
        );
        return;
    }
    // SAFETY: readable in every sockops program.
    let smoothed = unsafe { (*ctx.ops).srtt_us } >> SMOOTHED_BITS;
    // 0 before the first one.
    if smoothed != 0 {
        record(
            &raw mut stats.round_trip,
            u64::from(smoothed) * NANOSECONDS_PER_MICROSECOND,
        );
        add(&raw mut stats.smoothed, 1);
    }
}

/// Where a socket counts. `None` if its pod is not enrolled any more, or there is no room.
#[inline(always)]
fn stats(state: &PodSocketState) -> Option<&'static mut PodSocketStats> {
    let key = &state.key;
    let mut found = POD_SOCKETS.get_ptr_mut(key);
    if found.is_none() {
        // SAFETY: entries are freed after an RCU grace period, which this program runs within.
        unsafe { PODS.get(state.key.netns_cookie) }?;
        // Another processor may have added it.
        let nothing = &NOTHING;
        let _there_already = POD_SOCKETS.insert(key, nothing, u64::from(BPF_NOEXIST));
        found = POD_SOCKETS.get_ptr_mut(key);
        if found.is_none() {
            count(Counter::PodSocketsFull);
        }
    }
    // SAFETY: entries are freed after an RCU grace period, which this program runs within. Others
    // change it at the same time, so what is counted is added atomically.
    let stats = unsafe { found?.as_mut() }?;
    stats.last_at = now();
    Some(stats)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts one duration.
#[inline(always)]
fn record(durations: *mut Durations, nanoseconds: u64) {
    let bucket = Durations::bucket_of(nanoseconds);
    // SAFETY: a local variable. Volatile, because the compiler knows that the check passes and would
    // leave it out; the verifier knows only what it sees.
    let bucket = unsafe { core::ptr::read_volatile(&raw const bucket) };
    if bucket >= DURATION_BUCKETS {
        return;
    }
    // SAFETY: within the entry of a map, as the verifier checks.
    let (sum, bucket) = unsafe {
        (
            &raw mut (*durations).sum,
            (&raw mut (*durations).buckets).cast::<u64>().add(bucket),
        )
    };
    add(sum, nanoseconds);
    add(bucket, 1);
}

#[inline(always)]
fn add(value: *mut u64, difference: u64) {
    // SAFETY: the value is 8-aligned, in the entry of a map. The intrinsic, because the bpf target has
    // atomic addition but not the compare-and-swap that `AtomicU64` asks for.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, difference);
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
