//! getsockopt: answers SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST for redirected connections, so that
//! any proxy that works behind iptables REDIRECT works here unmodified.

use aya_ebpf::{macros::cgroup_sockopt, programs::SockoptContext};
use mesh_common::{Counter, Origin, SocketRole};

use crate::{
    address::{Words, is_mapped, words},
    maps::count,
    storage,
};

/// Let the (possibly changed) answer through.
const OK: i32 = 1;
/// `SOL_IP` and `SOL_IPV6` of include/linux/socket.h.
const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
/// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST` of include/uapi/linux/netfilter_ipv{4,6}. Other
/// levels have options of this number too.
const ORIGINAL_DST: i32 = 80;
/// Past this length the kernel shows the program only part of the buffer and would fail the call
/// unless the program gives the length back (kernel/bpf/cgroup.c).
const PAGE_SIZE: i32 = 4096;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `struct sockaddr_in`.
#[repr(C)]
struct SocketAddress4 {
    family: u16,
    port: u16,
    address: u32,
    zero: [u32; 2],
}

/// `struct sockaddr_in6`.
#[repr(C)]
struct SocketAddress6 {
    family: u16,
    port: u16,
    flow: u32,
    address: Words,
    scope: u32,
}

#[cgroup_sockopt(getsockopt)]
pub fn mesh_getsockopt(ctx: SockoptContext) -> i32 {
    // SAFETY: readable in this hook.
    let (level, option, length) = unsafe {
        (
            (*ctx.sockopt).level,
            (*ctx.sockopt).optname,
            (*ctx.sockopt).optlen,
        )
    };
    if length > PAGE_SIZE {
        set_length(&ctx, 0);
        return OK;
    }
    if option != ORIGINAL_DST || (level != SOL_IP && level != SOL_IPV6) {
        return OK;
    }
    // SAFETY: every sockopt context has a socket.
    let socket = unsafe { (*ctx.sockopt).__bindgen_anon_1.sk };
    if socket.is_null() {
        return OK;
    }
    if let Some(state) = storage::get(socket)
        && state.role == SocketRole::Accepted as u16
    {
        answer(&ctx, level, &state.origin);
    }
    OK
}

#[inline(always)]
fn answer(ctx: &SockoptContext, level: i32, origin: &Origin) {
    let address = words(origin.address);
    let written = if level == SOL_IP && is_mapped(&address) {
        write(
            ctx,
            SocketAddress4 {
                family: AF_INET,
                port: origin.port.to_be(),
                address: address[3],
                zero: [0; 2],
            },
        )
    } else if level == SOL_IPV6 && !is_mapped(&address) {
        write(
            ctx,
            SocketAddress6 {
                family: AF_INET6,
                port: origin.port.to_be(),
                flow: 0,
                address,
                scope: 0,
            },
        )
    } else {
        // The other family: netfilter has no answer there either.
        false
    };
    if written {
        count(Counter::OriginalDstAnswered);
    }
}

/// Writes the answer; `false` if the caller's buffer is too short for it.
#[inline(always)]
fn write<T>(ctx: &SockoptContext, value: T) -> bool {
    // SAFETY: the bounds check is the one the verifier asks for before a write through `optval`.
    unsafe {
        let start = (*ctx.sockopt).__bindgen_anon_2.optval.cast::<u8>();
        let end = (*ctx.sockopt).__bindgen_anon_3.optval_end.cast::<u8>();
        if start.add(size_of::<T>()) > end {
            return false;
        }
        start.cast::<T>().write_unaligned(value);
    }
    set_length(ctx, size_of::<T>() as i32);
    // SAFETY: getsockopt programs may set the return value to 0. Volatile: the compiler would join
    // this store with that of the length, which the verifier refuses.
    unsafe { (&raw mut (*ctx.sockopt).retval).write_volatile(0) };
    true
}

#[inline(always)]
fn set_length(ctx: &SockoptContext, length: i32) {
    // SAFETY: getsockopt programs may write the length; volatile as above.
    unsafe { (&raw mut (*ctx.sockopt).optlen).write_volatile(length) };
}
