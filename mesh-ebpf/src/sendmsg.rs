//! sendmsg4 and sendmsg6: the verdict on every datagram of an enrolled pod that is sent with an
//! address. What a connected socket sends without one went through connect.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    address::mapped,
    datagram,
    verdict::{port, read_address6},
};

#[cgroup_sock_addr(sendmsg4)]
pub fn mesh_sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: readable in this hook.
    let address = mapped(unsafe { (*ctx.sock_addr).user_ip4 });
    datagram::verdict(&ctx, address, port(&ctx)).apply4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn mesh_sendmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: an IPv6 hook.
    let address = unsafe { read_address6(&ctx) };
    datagram::verdict(&ctx, address, port(&ctx)).apply6(&ctx)
}
