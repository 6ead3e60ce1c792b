//! getsockname4 and getsockname6: a server sees the address that it asked for, and on an accepted
//! connection the one that its client connected to.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use mesh_common::SocketRole;

use crate::{
    address::{Words, is_loopback4, is_mapped, mapped, same, words},
    storage,
    verdict::{port, read_address6, write_address6},
};

/// getsockname programs must return 1.
const OK: i32 = 1;

#[cgroup_sock_addr(getsockname4)]
pub fn mesh_getsock4(ctx: SockAddrContext) -> i32 {
    // SAFETY: readable in this hook.
    let shown = unsafe { (*ctx.sock_addr).user_ip4 };
    if let Some((address, port)) = asked_for(&ctx, &mapped(shown)) {
        // SAFETY: this hook may write these fields.
        unsafe {
            (*ctx.sock_addr).user_ip4 = address[3];
            (*ctx.sock_addr).user_port = u32::from(port.to_be());
        }
    }
    OK
}

#[cgroup_sock_addr(getsockname6)]
pub fn mesh_getsock6(ctx: SockAddrContext) -> i32 {
    // SAFETY: an IPv6 hook.
    let shown = unsafe { read_address6(&ctx) };
    if let Some((address, port)) = asked_for(&ctx, &shown) {
        // SAFETY: an IPv6 hook that may write these fields.
        unsafe {
            write_address6(&ctx, &address);
            (*ctx.sock_addr).user_port = u32::from(port.to_be());
        }
    }
    OK
}

#[inline(always)]
fn asked_for(ctx: &SockAddrContext, shown: &Words) -> Option<(Words, u16)> {
    if is_mapped(shown) && !is_loopback4(shown[3]) {
        return None;
    }
    // SAFETY: every sock_addr context has a socket.
    let state = storage::get(unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk })?;
    let port = port(ctx);
    if state.role == SocketRole::InboundAccepted as u16 {
        return Some((words(state.proxy_address), state.proxy_port));
    }
    let is_bound = state.role == SocketRole::InboundBound as u16
        || state.role == SocketRole::InboundListening as u16;
    (is_bound && port == state.origin.port && same(shown, &words(state.proxy_address)))
        .then(|| (words(state.origin.address), port))
}
