//! sockops: keeps `origin_dst_map` in step with the life of redirected connections.
//!
//! The app's end inserts the entry when its handshake completes, which is before its last ACK
//! leaves, so the proxy's end finds it. From then on the proxy's end owns it: an app may well be
//! gone before the proxy asks where it wanted to go.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_EXIST, BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        bpf_sock,
    },
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::error;
use mesh_common::{Counter, Origin, OriginKey, SocketRole, SocketState};

use crate::{
    address::{is_loopback4, same, words},
    maps::{ORIGIN_DST_MAP, PODS, count, origin_added, origin_removed},
    origin, storage,
};

/// What sockops programs return; anything else makes the kernel ignore the reply.
const OK: u32 = 1;
/// `TCP_CLOSE` of include/net/tcp_states.h.
const TCP_CLOSE: u32 = 7;

#[sock_ops]
pub fn mesh_sockops(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
        && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
        && op != BPF_SOCK_OPS_STATE_CB
    {
        return OK;
    }
    if op != BPF_SOCK_OPS_STATE_CB && !may_be_redirected(&ctx, op) {
        return OK;
    }
    // SAFETY: readable in every sockops program; null is checked.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return OK;
    }
    if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        accepted(&ctx, socket);
    } else if let Some(state) = storage::get(socket) {
        if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
            established(&ctx, state);
        } else if ctx.arg(1) == TCP_CLOSE {
            closed(&ctx, state);
        }
    }
    OK
}

/// Spares every other connection of the node the look-ups.
#[inline(always)]
fn may_be_redirected(ctx: &SockOpsContext, op: u32) -> bool {
    if ctx.family() != origin::AF_INET {
        return true;
    }
    is_loopback4(if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        ctx.remote_ip4()
    } else {
        ctx.local_ip4()
    })
}

/// The app's handshake completed: hand its original destination over.
#[inline(always)]
fn established(ctx: &SockOpsContext, state: &mut SocketState) {
    if state.role != SocketRole::Client as u16 {
        return;
    }
    let (address, port) = origin::remote(ctx);
    if !same(&address, &words(state.proxy_address)) || port != state.proxy_port {
        return;
    }
    state.established = 1;
    let key = origin::key_of_client(ctx);
    if ORIGIN_DST_MAP
        .insert(key, state.origin, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        origin_added();
    } else if ORIGIN_DST_MAP.insert(key, state.origin, 0).is_err() {
        count(Counter::OriginLost);
        error!(
            ctx,
            "origin_dst_map takes no entry: the proxy will reset a connection from port {}; raise agent.maxConnections",
            key.client_port
        );
        return;
    }
    count(Counter::Established);
    watch_state(ctx);
}

/// The proxy's end exists: it takes the entry over and keeps a copy for getsockopt.
#[inline(always)]
fn accepted(ctx: &SockOpsContext, socket: *mut bpf_sock) {
    // SAFETY: the helper takes this program's context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: entries are freed after an RCU grace period, which this program runs within.
    let is_proxy_port =
        unsafe { PODS.get(netns_cookie) }.is_some_and(|pod| pod.proxy_port == ctx.local_port());
    if !is_proxy_port {
        return;
    }
    let key = origin::key_of_accepted(ctx);
    // SAFETY: a copy is taken. Should the entry be freed meanwhile (the app reset), the update below
    // finds none and the copy is not used.
    let Some(&origin) = (unsafe { ORIGIN_DST_MAP.get(key) }) else {
        return;
    };
    let Some(state) = storage::get_or_create(socket) else {
        return;
    };
    let origin = Origin {
        accepted: 1,
        ..origin
    };
    // Only if it is still there: otherwise nobody would remove it.
    if ORIGIN_DST_MAP
        .insert(key, origin, u64::from(BPF_EXIST))
        .is_ok()
    {
        state.origin = origin;
        state.role = SocketRole::Accepted as u16;
        watch_state(ctx);
    }
}

/// One end closed: the entry goes when the end that owns it does.
#[inline(always)]
fn closed(ctx: &SockOpsContext, state: &SocketState) {
    if state.role == SocketRole::Accepted as u16 {
        remove(&origin::key_of_accepted(ctx), |origin_cookie, _| {
            origin_cookie == state.origin.client_cookie
        });
    } else if state.role == SocketRole::Client as u16 && state.established == 1 {
        // SAFETY: the helper takes this program's context.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        remove(&origin::key_of_client(ctx), |origin_cookie, accepted| {
            origin_cookie == cookie && !accepted
        });
    }
}

/// Removes the entry if `is_ours` says so of its client cookie and whether it is accepted: a later
/// connection may have the same addresses.
#[inline(always)]
fn remove(key: &OriginKey, is_ours: impl Fn(u64, bool) -> bool) {
    // SAFETY: the reference is not used past the removal.
    let ours = unsafe { ORIGIN_DST_MAP.get(key) }
        .is_some_and(|origin| is_ours(origin.client_cookie, origin.accepted == 1));
    if ours && ORIGIN_DST_MAP.remove(key).is_ok() {
        origin_removed();
    }
}

#[inline(always)]
fn watch_state(ctx: &SockOpsContext) {
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    // Refused flags are those of a newer kernel than this one; this one is as old as sockops.
    let _accepted = ctx.set_cb_flags(flags as i32);
}
