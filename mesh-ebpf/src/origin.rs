//! The key of a connection in `origin_dst_map`, from either of its ends.

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_netns_cookie, programs::SockOpsContext};
use mesh_common::{OriginKey, PROTOCOL_TCP};

use crate::address::{Words, bytes, is_mapped, mapped};

/// `AF_INET` of include/linux/socket.h.
pub const AF_INET: u32 = 2;

/// One end of a connection.
struct End {
    address: Words,
    port: u16,
}

/// (local, remote). A v6 socket with a v4-mapped peer has its addresses in the v4 fields too, and
/// only there reliably.
#[inline(always)]
fn ends(ctx: &SockOpsContext) -> (End, End) {
    let local_port = ctx.local_port() as u16;
    let remote_port = u32::from_be(ctx.remote_port()) as u16;
    let ipv4 = ctx.family() == AF_INET || is_mapped(&remote6(ctx));
    let (local, remote) = if ipv4 {
        (mapped(ctx.local_ip4()), mapped(ctx.remote_ip4()))
    } else {
        (local6(ctx), remote6(ctx))
    };
    (
        End {
            address: local,
            port: local_port,
        },
        End {
            address: remote,
            port: remote_port,
        },
    )
}

#[inline(always)]
fn local6(ctx: &SockOpsContext) -> Words {
    // SAFETY: readable in every sockops program; volatile keeps the loads apart, as the verifier
    // demands.
    unsafe {
        let source = (&raw const (*ctx.ops).local_ip6).cast::<u32>();
        [
            source.read_volatile(),
            source.add(1).read_volatile(),
            source.add(2).read_volatile(),
            source.add(3).read_volatile(),
        ]
    }
}

#[inline(always)]
fn remote6(ctx: &SockOpsContext) -> Words {
    // SAFETY: as in `local6`.
    unsafe {
        let source = (&raw const (*ctx.ops).remote_ip6).cast::<u32>();
        [
            source.read_volatile(),
            source.add(1).read_volatile(),
            source.add(2).read_volatile(),
            source.add(3).read_volatile(),
        ]
    }
}

/// The local end, as the maps hold it.
#[inline(always)]
pub fn local(ctx: &SockOpsContext) -> (Words, u16) {
    let (local, _) = ends(ctx);
    (local.address, local.port)
}

/// The remote end of the connection, as the maps hold it.
#[inline(always)]
pub fn remote(ctx: &SockOpsContext) -> (Words, u16) {
    let (_, remote) = ends(ctx);
    (remote.address, remote.port)
}

/// The key, when the context is that of the app's socket.
#[inline(always)]
pub fn key_of_client(ctx: &SockOpsContext) -> OriginKey {
    let (local, remote) = ends(ctx);
    key(ctx, &local, &remote)
}

/// The key, when the context is that of the proxy's socket.
#[inline(always)]
pub fn key_of_accepted(ctx: &SockOpsContext) -> OriginKey {
    let (local, remote) = ends(ctx);
    key(ctx, &remote, &local)
}

#[inline(always)]
fn key(ctx: &SockOpsContext, client: &End, proxy: &End) -> OriginKey {
    OriginKey {
        // SAFETY: the helper takes this program's context.
        netns_cookie: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        client_address: bytes(client.address),
        proxy_address: bytes(proxy.address),
        client_port: client.port,
        proxy_port: proxy.port,
        protocol: PROTOCOL_TCP,
        reserved: 0,
    }
}
