//! How long what a pod sends takes to the network device, and from there to the peer's kernel.
//!
//! The kernel calls at the end of each send, where this program may ask to be told of that very data
//! again: when it is handed to the device and when it is acknowledged. One send of a socket is timed at
//! a time, so that what to tell apart is only "under way" and "not"; a key of the data itself is not
//! within a program's reach without knowing the layout of the running kernel's structures.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::bpf_sock_ops,
    helpers::{bpf_get_prandom_u32, bpf_setsockopt},
    programs::SockOpsContext,
};
use core::ffi::c_void;
use mesh_common::PodSocketState;

use crate::{now, record, stats};

// `BPF_SOCK_OPS_TSTAMP_*_CB` of include/uapi/linux/bpf.h, from 6.15 on.
const HANDED_TO_DEVICE: u32 = 17;
const ACKNOWLEDGED: u32 = 19;
const SENDMSG: u32 = 20;

/// `SOL_SOCKET` of include/asm-generic/socket.h.
const SOL_SOCKET: i32 = 1;
/// `SK_BPF_CB_FLAGS` of include/uapi/linux/bpf.h, and its bit `SK_BPF_CB_TX_TIMESTAMPING`.
const SK_BPF_CB_FLAGS: i32 = 1009;
const TX_TIMESTAMPING: u32 = 1;

/// One in so many sends of a socket is timed, a power of 2; set by the loader.
#[unsafe(no_mangle)]
static STAMP_EVERY: Global<u64> = Global::new(1);

// What stands in the object for calls of functions that are no helpers: no helper has these numbers.
// The loader, who can look up which ones the functions have in the running kernel, puts in the calls.
/// For `bpf_cast_to_kern_ctx`.
const CAST_TO_KERN_CTX: usize = 0x6d74_6b63;
/// For `bpf_sock_ops_enable_tx_tstamp`.
const ENABLE_TX_TSTAMP: usize = 0x6d74_7374;

/// Whether a program is called so because of what this file asks for.
#[inline(always)]
pub fn is_one(op: u32) -> bool {
    op == SENDMSG || op == HANDED_TO_DEVICE || op == ACKNOWLEDGED
}

/// Has the kernel call at each send of this socket.
#[inline(always)]
pub fn ask_for(ctx: &SockOpsContext, state: &mut PodSocketState) {
    // Anywhere in its first turn: neither always nor never the first send of short connections.
    // SAFETY: no arguments.
    state.sends = u64::from(unsafe { bpf_get_prandom_u32() });
    let mut flags = TX_TIMESTAMPING;
    // SAFETY: the helper takes this program's context and four bytes on its stack.
    let _not_in_this_kernel = unsafe {
        bpf_setsockopt(
            ctx.as_ptr(),
            SOL_SOCKET,
            SK_BPF_CB_FLAGS,
            (&raw mut flags).cast(),
            size_of::<u32>() as i32,
        )
    };
}

/// The kernel calls at a send, or because of one that is timed.
#[inline(always)]
pub fn stamp(ctx: &SockOpsContext, op: u32, state: &mut PodSocketState) {
    if op == SENDMSG {
        sent(ctx, state);
    } else if state.sent_at == 0 {
        // Of a segment that was sent again, or another program asked for it.
    } else if op == HANDED_TO_DEVICE {
        if state.device_at == 0 {
            let now = now();
            state.device_at = now;
            if let Some(stats) = stats(state) {
                record(&raw mut stats.to_device, now.wrapping_sub(state.sent_at));
            }
        }
    } else {
        acknowledged(state);
    }
}

#[inline(always)]
fn sent(ctx: &SockOpsContext, state: &mut PodSocketState) {
    let sends = state.sends;
    state.sends = sends + 1;
    if state.sent_at != 0 || sends & (STAMP_EVERY.load() - 1) != 0 {
        return;
    }
    // Before the call: from there on another processor may hand it to the device.
    state.device_at = 0;
    state.sent_at = now();
    if !enable(ctx) {
        state.sent_at = 0;
    }
}

/// Asks to be told of the data of the send that the kernel calls at.
#[inline(always)]
fn enable(ctx: &SockOpsContext) -> bool {
    // SAFETY: what the loader puts in takes this program's context, and gives it as the kernel has it.
    let cast: unsafe extern "C" fn(*mut bpf_sock_ops) -> *mut c_void =
        unsafe { core::mem::transmute(CAST_TO_KERN_CTX) };
    // SAFETY: what the loader puts in takes that and no flags.
    let enable: unsafe extern "C" fn(*mut c_void, u64) -> i32 =
        unsafe { core::mem::transmute(ENABLE_TX_TSTAMP) };
    // SAFETY: see above.
    let kernel_context = unsafe { cast(ctx.ops) };
    // SAFETY: see above.
    unsafe { enable(kernel_context, 0) == 0 }
}

#[inline(always)]
fn acknowledged(state: &mut PodSocketState) {
    let device_at = state.device_at;
    state.sent_at = 0;
    // Data that had left before its send ended has no stamp of the device.
    if device_at != 0
        && let Some(stats) = stats(state)
    {
        record(
            &raw mut stats.to_acknowledged,
            now().wrapping_sub(device_at),
        );
    }
}
