//! getpeername4 and getpeername6: a client sees the address that it asked for, and a server that of its
//! client. The kernel runs them for the address that accept(2) gives, too.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use mesh_common::SocketRole;

use crate::{
    address::{Words, is_loopback4, mapped, same, words},
    datagram::flow_of,
    storage,
    verdict::{port, read_address6, write_address6},
};

/// getpeername programs must return 1.
const OK: i32 = 1;

#[cgroup_sock_addr(getpeername4)]
pub fn mesh_getpeer4(ctx: SockAddrContext) -> i32 {
    // SAFETY: readable in this hook.
    let peer = unsafe { (*ctx.sock_addr).user_ip4 };
    if (is_loopback4(peer) || peer == own_address(&ctx))
        && let Some((address, port)) = origin_of(&ctx, &mapped(peer))
    {
        // SAFETY: this hook may write these fields.
        unsafe {
            (*ctx.sock_addr).user_ip4 = address[3];
            (*ctx.sock_addr).user_port = u32::from(port.to_be());
        }
    }
    OK
}

#[cgroup_sock_addr(getpeername6)]
pub fn mesh_getpeer6(ctx: SockAddrContext) -> i32 {
    // SAFETY: an IPv6 hook.
    let peer = unsafe { read_address6(&ctx) };
    if let Some((address, port)) = origin_of(&ctx, &peer) {
        // SAFETY: an IPv6 hook that may write these fields.
        unsafe {
            write_address6(&ctx, &address);
            (*ctx.sock_addr).user_port = u32::from(port.to_be());
        }
    }
    OK
}

/// The agent's connections to servers that are bound to an address of the pod come from there.
#[inline(always)]
fn own_address(ctx: &SockAddrContext) -> u32 {
    // SAFETY: every sock_addr context has a socket.
    unsafe { (*(*ctx.sock_addr).__bindgen_anon_1.sk).src_ip4 }
}

/// Where the app wanted to go, if its socket is connected to where we sent it.
#[inline(always)]
fn origin_of(ctx: &SockAddrContext, peer: &Words) -> Option<(Words, u16)> {
    // SAFETY: every sock_addr context has a socket.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    let port = port(ctx);
    if let Some(flow) = flow_of(socket, peer, port) {
        return Some((words(flow.address), flow.port));
    }
    let state = storage::get(socket)?;
    if state.role == SocketRole::InboundAccepted as u16 {
        return Some((words(state.origin.address), state.origin.port));
    }
    let ours = state.role == SocketRole::Client as u16
        && state.proxy_port == port
        && same(peer, &words(state.proxy_address));
    ours.then(|| (words(state.origin.address), state.origin.port))
}
