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
        BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock,
    },
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::error;
use mesh_common::{Counter, Origin, OriginKey, Pod, SocketRole, SocketState, capture};

use crate::{
    address::{is_loopback4, same, words},
    inbound,
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
    let is_of_interest = match op {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            may_be_ours(&ctx)
        }
        BPF_SOCK_OPS_STATE_CB | BPF_SOCK_OPS_TCP_LISTEN_CB => true,
        _ => false,
    };
    if !is_of_interest {
        return OK;
    }
    // SAFETY: readable in every sockops program; null is checked.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return OK;
    }
    if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        accepted(&ctx, socket);
    } else if op == BPF_SOCK_OPS_TCP_LISTEN_CB {
        listening(&ctx, socket);
    } else if let Some(state) = storage::get(socket) {
        if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
            established(&ctx, state);
        } else if ctx.arg(1) == TCP_CLOSE {
            closed(&ctx, state);
        }
    }
    OK
}

/// Spares every other connection of the node the look-ups: the agent's end and the pod's are in one
/// namespace, so that the connection is over loopback, or of an address with itself.
#[inline(always)]
fn may_be_ours(ctx: &SockOpsContext) -> bool {
    if ctx.family() != origin::AF_INET {
        return true;
    }
    let (local, remote) = (ctx.local_ip4(), ctx.remote_ip4());
    is_loopback4(local) || is_loopback4(remote) || local == remote
}

fn pod_of(ctx: &SockOpsContext) -> Option<&'static Pod> {
    // SAFETY: the helper takes this program's context; entries are freed after an RCU grace period,
    // which this program runs within.
    unsafe { PODS.get(bpf_get_netns_cookie(ctx.as_ptr())) }
}

/// A socket listens from now on.
#[inline(always)]
fn listening(ctx: &SockOpsContext, socket: *mut bpf_sock) {
    if let Some(pod) = pod_of(ctx)
        && inbound::listening(ctx, pod, socket)
    {
        watch_state(ctx);
    }
}

/// The app's handshake completed: hand its original destination over.
#[inline(always)]
fn established(ctx: &SockOpsContext, state: &mut SocketState) {
    if state.role == SocketRole::InboundUpstream as u16 {
        inbound::connected(ctx, state);
        watch_state(ctx);
        return;
    }
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
    let Some(pod) = pod_of(ctx) else {
        return;
    };
    if pod.proxy_port != ctx.local_port() {
        if pod.capture & capture::INBOUND != 0 {
            inbound::accepted(ctx, socket);
        }
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
fn closed(ctx: &SockOpsContext, state: &mut SocketState) {
    if state.role == SocketRole::Accepted as u16 {
        remove(&origin::key_of_accepted(ctx), |origin_cookie, _| {
            origin_cookie == state.origin.client_cookie
        });
    } else if state.role == SocketRole::InboundListening as u16 {
        inbound::stopped_listening(ctx, state);
    } else if state.role == SocketRole::InboundUpstream as u16 {
        inbound::closed(ctx);
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
