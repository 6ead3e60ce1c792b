//! bind4 and bind6: a server that binds every address is bound to loopback instead, so that its
//! clients come through the agent.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::{bpf_get_netns_cookie, bpf_skc_to_tcp6_sock},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use mesh_common::{Counter, SocketRole, capture, pod_flags};

use crate::{
    address::{LOOPBACK4, LOOPBACK6, Words, bytes, mapped, same},
    inbound::is_excluded,
    listener::is_taking_inbound,
    maps::{PODS, count},
    storage,
    verdict::{is_tcp, port, read_address6, write_address6},
};

/// bind programs return 1 to go on.
const OK: i32 = 1;

#[cgroup_sock_addr(bind4)]
pub fn mesh_bind4(ctx: SockAddrContext) -> i32 {
    // SAFETY: readable in bind4.
    let address = mapped(unsafe { (*ctx.sock_addr).user_ip4 });
    if let Some(instead) = instead_of(&ctx, &address) {
        // SAFETY: bind4 may write this field.
        unsafe { (*ctx.sock_addr).user_ip4 = instead[3] };
    }
    OK
}

#[cgroup_sock_addr(bind6)]
pub fn mesh_bind6(ctx: SockAddrContext) -> i32 {
    // SAFETY: an IPv6 hook.
    let address = unsafe { read_address6(&ctx) };
    if let Some(instead) = instead_of(&ctx, &address) {
        // SAFETY: bind6 may write the address.
        unsafe { write_address6(&ctx, &instead) };
    }
    OK
}

/// The address to bind instead. Port 0 is left alone: most that bind it go on to connect.
#[inline(always)]
fn instead_of(ctx: &SockAddrContext, address: &Words) -> Option<Words> {
    let port = port(ctx);
    if port == 0 || !is_tcp(ctx) {
        return None;
    }
    let every4 = same(address, &mapped(0));
    if !every4 && !same(address, &[0; 4]) {
        return None;
    }
    // SAFETY: the helper takes this program's context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: entries are freed after an RCU grace period, which this program runs within.
    let pod = unsafe { PODS.get(netns_cookie) }?;
    if pod.capture & capture::INBOUND == 0
        || pod.flags & pod_flags::REWRITES_BIND == 0
        || is_excluded(pod, port)
    {
        return None;
    }
    // SAFETY: every sock_addr context has a socket.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    // Such a socket takes no mapped address, and any other is for IPv6 only once it has a real one.
    let only_ipv6 = !every4 && is_only_ipv6(socket);
    let has_loopback = !only_ipv6 || pod.flags & pod_flags::IPV6_LOOPBACK != 0;
    if !has_loopback || !is_taking_inbound(ctx, pod, !only_ipv6) {
        return None;
    }
    let loopback = if only_ipv6 {
        LOOPBACK6
    } else {
        mapped(LOOPBACK4)
    };
    let state = storage::get_or_create(socket)?;
    state.role = SocketRole::InboundBound as u16;
    state.origin.address = bytes(*address);
    state.origin.port = port;
    state.proxy_address = bytes(loopback);
    state.proxy_port = port;
    state.established = 0;
    count(Counter::BindsRewritten);
    Some(loopback)
}

/// Whether the socket has `IPV6_V6ONLY`: `skc_ipv6only` of struct sock_common in include/net/sock.h, a
/// bit whose place has not changed since Linux 3.9.
#[inline(always)]
fn is_only_ipv6(socket: *mut bpf_sock) -> bool {
    const BYTE: usize = 19;
    const BIT: u8 = 1 << 5;
    // SAFETY: the helper takes a socket of the context.
    let socket = unsafe { bpf_skc_to_tcp6_sock(socket.cast()) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and every socket begins with a sock_common, which is longer.
    unsafe { socket.cast::<u8>().add(BYTE).read_volatile() & BIT != 0 }
}
