//! connect4 and connect6: the verdict on every TCP connect of an enrolled pod, and on every connect
//! of a datagram socket.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use mesh_common::{Counter, Origin, SocketRole, capture};

use crate::{
    address::{Words, bytes, is_local, is_mapped, mapped},
    datagram,
    listener::proxy_address,
    maps::{PODS, count, origins_full},
    storage,
    verdict::{
        Call, Verdict, exemption, has_port, is_tcp, is_udp, pass, port, process, read_address6,
        without_proxy,
    },
};

#[cgroup_sock_addr(connect4)]
pub fn mesh_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the field is readable in connect4.
    let address = mapped(unsafe { (*ctx.sock_addr).user_ip4 });
    verdict(&ctx, address).apply4(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn mesh_connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: an IPv6 hook.
    let address = unsafe { read_address6(&ctx) };
    verdict(&ctx, address).apply6(&ctx)
}

#[inline(always)]
fn verdict(ctx: &SockAddrContext, destination: Words) -> Verdict {
    if is_tcp(ctx) {
        stream_verdict(ctx, destination, port(ctx))
    } else if is_udp(ctx) {
        datagram::verdict(ctx, destination, port(ctx))
    } else {
        Verdict::Pass
    }
}

#[inline(always)]
fn stream_verdict(ctx: &SockAddrContext, destination: Words, port: u16) -> Verdict {
    // SAFETY: the helper takes this program's context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: entries are freed after an RCU grace period, which this program runs within.
    let Some(pod) = (unsafe { PODS.get(netns_cookie) }) else {
        return Verdict::Pass;
    };
    // SAFETY: every sock_addr context has a socket.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    let mut is_bound_elsewhere = false;
    if let Some(state) = storage::get(socket) {
        if state.role == SocketRole::Upstream as u16
            || state.role == SocketRole::InboundUpstream as u16
        {
            return pass(Counter::OwnSocket);
        }
        is_bound_elsewhere = state.role == SocketRole::InboundBound as u16;
        // What an earlier connect on this socket left is void from here on.
        if state.role == SocketRole::Client as u16 && state.established == 0 {
            count(Counter::NeverConnected);
        }
        state.role = SocketRole::None as u16;
    }
    let is_dns = pod.capture & capture::DNS != 0 && has_port(&pod.dns_ports, port);
    // A socket that bind moved to loopback gets nowhere from there but through the agent.
    let may_pass = !is_bound_elsewhere || is_local(&destination);
    if may_pass && pod.capture & capture::OUTBOUND == 0 && !is_dns {
        return pass(Counter::NotCaptured);
    }
    if may_pass && let Some(reason) = exemption(pod, socket, &destination, port) {
        return pass(reason);
    }
    let call = Call {
        netns_cookie,
        destination,
        port,
    };
    if origins_full() {
        return call.map_is_full(pod);
    }
    let Some(proxy) = proxy_address(ctx, pod, &destination, port) else {
        return call.agent_is_down(pod);
    };
    if !remember(ctx, socket, &call, &proxy, pod.proxy_port as u16) {
        return without_proxy(pod, Counter::NoMemory, Counter::NoMemory);
    }
    count(Counter::Redirected);
    Verdict::Redirect {
        address: proxy,
        port: pod.proxy_port as u16,
    }
}

/// Leaves the original destination at the socket, for sockops. `false`: no memory.
#[inline(always)]
fn remember(
    ctx: &SockAddrContext,
    socket: *mut bpf_sock,
    call: &Call,
    proxy: &Words,
    proxy_port: u16,
) -> bool {
    let Some(state) = storage::get_or_create(socket) else {
        return false;
    };
    state.origin = origin(ctx, call);
    state.proxy_address = bytes(*proxy);
    state.proxy_port = proxy_port;
    state.established = 0;
    state.role = SocketRole::Client as u16;
    true
}

/// Where the call wanted to go, as the maps hold it.
#[inline(always)]
pub fn origin(ctx: &SockAddrContext, call: &Call) -> Origin {
    Origin {
        address: bytes(call.destination),
        port: call.port,
        accepted: 0,
        process: process(),
        // SAFETY: the helper takes this program's context.
        client_cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        // SAFETY: no arguments.
        connected_at: unsafe { bpf_ktime_get_ns() },
    }
}

// Keeps the v4 and v6 halves from drifting: a mapped destination must take the v4 path.
const _: () = assert!(is_mapped(&mapped(0)));
