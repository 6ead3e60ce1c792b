//! recvmsg4 and recvmsg6: a captured datagram's answer comes from the address that was asked.
//! Resolvers check it.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    address::{is_loopback4, is_mapped, is_token6, mapped, words},
    datagram::flow_of,
    verdict::{port, read_address6, write_address6},
};

/// recvmsg programs must return 1.
const OK: i32 = 1;

#[cgroup_sock_addr(recvmsg4)]
pub fn mesh_recvmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: readable in this hook.
    let source = unsafe { (*ctx.sock_addr).user_ip4 };
    if !is_loopback4(source) {
        return OK;
    }
    // SAFETY: every sock_addr context has a socket.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if let Some(flow) = flow_of(socket, &mapped(source), port(&ctx)) {
        // SAFETY: this hook may write these fields.
        unsafe {
            (*ctx.sock_addr).user_ip4 = words(flow.address)[3];
            (*ctx.sock_addr).user_port = u32::from(flow.port.to_be());
        }
    }
    OK
}

#[cgroup_sock_addr(recvmsg6)]
pub fn mesh_recvmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: an IPv6 hook.
    let source = unsafe { read_address6(&ctx) };
    if !(is_token6(&source) || is_mapped(&source) && is_loopback4(source[3])) {
        return OK;
    }
    // SAFETY: every sock_addr context has a socket.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if let Some(flow) = flow_of(socket, &source, port(&ctx)) {
        // SAFETY: an IPv6 hook that may write these fields.
        unsafe {
            write_address6(&ctx, &words(flow.address));
            (*ctx.sock_addr).user_port = u32::from(flow.port.to_be());
        }
    }
    OK
}
