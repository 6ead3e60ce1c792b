//! Kernel half of mesh-agent: programs on the cgroup hooks that catch the socket calls of enrolled
//! pods. One file per hook family; the maps are in [`maps`].
//!
//! Invariant of every program here: when in doubt, let the call through unchanged.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)]

mod address;
mod bind;
mod connect;
mod datagram;
mod getpeername;
mod getsockname;
mod getsockopt;
mod inbound;
mod listener;
mod maps;
mod origin;
mod recvmsg;
mod sendmsg;
mod shared_maps;
mod sock_release;
mod socket_maps;
mod socket_storage;
mod sockops;
mod storage;
mod verdict;

/// Declares that all helpers may be used; the code itself is MIT OR Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
