//! Steers what comes to a pod's servers to the agent, from inside the pod's network namespace: no
//! connection can find the agent's listener missing, because there is one for all ports. When the
//! agent is down, connections go to the server's own socket, or are refused, as the pod chose.
//!
//! Invariant: when in doubt, the kernel's own choice stands.
#![no_std]
#![no_main]

#[allow(dead_code, reason = "the programs on the cgroup use the rest")]
mod address;
mod shared_maps;

use aya_ebpf::{
    Global, bindings::BPF_SK_LOOKUP_F_REPLACE, macros::sk_lookup, programs::SkLookupContext,
};
use mesh_common::{
    InboundKey, InboundPort, InboundProxyKey, ON_AGENT_DOWN_CLOSED, PROTOCOL_TCP, capture,
    inbound_flags,
};

use address::{LOOPBACK6, Words, bytes, is_loopback4, is_mapped, mapped, same, words};
use shared_maps::{INBOUND_PORTS, INBOUND_PROXIES, INBOUND_SOCKETS, PODS};

/// Declares that all helpers may be used; the code itself is MIT OR Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Which namespace this is; set by the loader.
#[unsafe(no_mangle)]
static NETNS_COOKIE: Global<u64> = Global::new(0);

const PASS: u32 = 1;
const DROP: u32 = 0;
/// `AF_INET` of include/linux/socket.h.
const AF_INET: u32 = 2;
/// `EAFNOSUPPORT` of include/uapi/asm-generic/errno.h.
const EAFNOSUPPORT: i32 = 97;

#[sk_lookup]
pub fn mesh_steer(ctx: SkLookupContext) -> u32 {
    // SAFETY: readable in every sk_lookup program.
    let (family, protocol, port) = unsafe {
        let lookup = ctx.lookup;
        (
            (*lookup).family,
            (*lookup).protocol,
            (*lookup).local_port as u16,
        )
    };
    if protocol != u32::from(PROTOCOL_TCP) {
        return PASS;
    }
    let is_ipv4 = family == AF_INET;
    let (address, client) = if is_ipv4 {
        // SAFETY: as above.
        unsafe {
            (
                mapped((*ctx.lookup).local_ip4),
                mapped((*ctx.lookup).remote_ip4),
            )
        }
    } else {
        addresses6(&ctx)
    };
    let Some((key, server)) = find(&address, port, is_ipv4) else {
        return PASS;
    };
    let is_rewritten = server.flags & inbound_flags::REWRITTEN != 0;
    if is_loopback(&address) {
        // A client in the pod. It reached every loopback address when the server was bound to all.
        if is_rewritten && !same(&address, &words(server.target)) {
            let _not_there = INBOUND_SOCKETS.redirect_sk_lookup(&ctx, key, 0);
        }
        return PASS;
    }
    // The kernel lets nobody else have this address for its own.
    let is_from_pod = same(&client, &address) || is_loopback(&client);
    if !is_rewritten && is_from_pod {
        // Above all the agent itself.
        return PASS;
    }
    if is_ipv4 && server.flags & inbound_flags::ONLY_IPV6 != 0 {
        return PASS;
    }
    // Refused by the kernel if the server's socket is for IPv6 only.
    let to_server = INBOUND_SOCKETS.redirect_sk_lookup(&ctx, key, 0);
    if to_server == Err(-EAFNOSUPPORT) {
        return PASS;
    }
    // SAFETY: entries are freed after an RCU grace period, which this program runs within.
    let pod = unsafe { PODS.get(NETNS_COOKIE.load()) };
    let Some(pod) = pod.filter(|pod| pod.capture & capture::INBOUND != 0) else {
        return PASS;
    };
    let proxy = InboundProxyKey {
        netns_cookie: NETNS_COOKIE.load(),
        ip_version: if is_ipv4 { 4 } else { 6 },
        reserved: 0,
    };
    let to_proxy =
        INBOUND_PROXIES.redirect_sk_lookup(&ctx, proxy, u64::from(BPF_SK_LOOKUP_F_REPLACE));
    if to_proxy.is_err() && pod.on_agent_down == ON_AGENT_DOWN_CLOSED {
        return DROP;
    }
    PASS
}

/// Who listens on this address, or on every address.
#[inline(always)]
fn find(address: &Words, port: u16, is_ipv4: bool) -> Option<(InboundKey, InboundPort)> {
    if let Some(found) = find_exactly(address, port) {
        return Some(found);
    }
    if is_ipv4 && let Some(found) = find_exactly(&mapped(0), port) {
        return Some(found);
    }
    find_exactly(&[0; 4], port)
}

#[inline(always)]
fn find_exactly(address: &Words, port: u16) -> Option<(InboundKey, InboundPort)> {
    let key = InboundKey::new(NETNS_COOKIE.load(), bytes(*address), port);
    // SAFETY: a copy is taken.
    let server = *unsafe { INBOUND_PORTS.get(key) }?;
    (server.listeners != 0).then_some((key, server))
}

#[inline(always)]
fn is_loopback(address: &Words) -> bool {
    if is_mapped(address) {
        is_loopback4(address[3])
    } else {
        same(address, &LOOPBACK6)
    }
}

/// The local and the remote address.
#[inline(always)]
fn addresses6(ctx: &SkLookupContext) -> (Words, Words) {
    // SAFETY: readable in every sk_lookup program.
    unsafe {
        (
            read_words((&raw const (*ctx.lookup).local_ip6).cast()),
            read_words((&raw const (*ctx.lookup).remote_ip6).cast()),
        )
    }
}

/// # Safety
/// `source` must be four words that this program may read.
#[inline(always)]
unsafe fn read_words(source: *const u32) -> Words {
    // SAFETY: see above; volatile keeps the loads apart, as the verifier demands.
    unsafe {
        [
            source.read_volatile(),
            source.add(1).read_volatile(),
            source.add(2).read_volatile(),
            source.add(3).read_volatile(),
        ]
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
