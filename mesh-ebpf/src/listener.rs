//! Is the proxy there? Looks for its listener in the pod's network namespace.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CURRENT_NETNS, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
    programs::SockAddrContext,
};
use mesh_common::{
    INBOUND_PORT, Pod, SocketRole, destination_token4, destination_token6, numbered_token_address,
    pod_flags, token_address, token_address6,
};

use crate::{
    address::{LOOPBACK4, LOOPBACK6, Words, is_mapped, mapped, same, words},
    storage,
};

/// `TCP_LISTEN` of include/net/tcp_states.h.
const TCP_LISTEN: u32 = 10;

/// Where to send a connect to `destination`, or `None` when no proxy listens there.
#[inline(always)]
pub fn proxy_address(
    ctx: &SockAddrContext,
    pod: &Pod,
    destination: &Words,
    port: u16,
) -> Option<Words> {
    let (preferred, loopback) = if is_mapped(destination) {
        let token = token_address(u32::from_be(destination[3]), port).to_be();
        (mapped(token), mapped(LOOPBACK4))
    } else {
        let own = own_address6(ctx);
        if is_mapped(&own) {
            // Bound to an IPv4 address, by the pod or by our bind6: it reaches no other.
            let token = destination_token4(*destination, port).to_be();
            (mapped(token), mapped(LOOPBACK4))
        } else if pod.flags & pod_flags::IPV6_TOKENS != 0 {
            (words(destination_token6(*destination, port)), own)
        } else {
            (own, LOOPBACK6)
        }
    };
    let port = pod.proxy_port as u16;
    if is_listening(ctx, pod, &preferred, port) {
        return Some(preferred);
    }
    // A user's own proxy may listen on the loopback address only.
    (pod.flags & pod_flags::EXTERNAL_PROXY != 0 && is_listening(ctx, pod, &loopback, port))
        .then_some(loopback)
}

/// `[::1]`, or the address that the app has bound its socket to: between that and `[::1]`, the ACKs
/// that time-wait sockets send would leave by the address's own device and be lost (net/ipv6
/// tcp_v6_send_response, rt6_need_strict), and the connection would not end for minutes.
#[inline(always)]
fn own_address6(ctx: &SockAddrContext) -> Words {
    // SAFETY: every sock_addr context has a socket; the words are read one by one, as the verifier
    // demands.
    let bound = unsafe {
        let source = (&raw const (*(*ctx.sock_addr).__bindgen_anon_1.sk).src_ip6).cast::<u32>();
        [
            source.read_volatile(),
            source.add(1).read_volatile(),
            source.add(2).read_volatile(),
            source.add(3).read_volatile(),
        ]
    };
    if same(&bound, &[0; 4]) {
        LOOPBACK6
    } else {
        bound
    }
}

/// Whether the pod's proxy listens on `address`. Another program's listener on the agent's port
/// does not count.
#[inline(always)]
fn is_listening(ctx: &SockAddrContext, pod: &Pod, address: &Words, port: u16) -> bool {
    let (mut tuple, size) = tuple(address, port);
    // SAFETY: the context is the program's own, the tuple lives on the stack.
    let socket = unsafe {
        bpf_sk_lookup_tcp(
            ctx.as_ptr(),
            &raw mut tuple,
            size,
            BPF_F_CURRENT_NETNS as u64,
            0,
        )
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and not yet released.
    let listening = unsafe { (*socket).state } == TCP_LISTEN
        && (pod.flags & pod_flags::EXTERNAL_PROXY != 0
            || storage::has_role(socket, SocketRole::Listener));
    // SAFETY: the reference that the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
    listening
}

/// Whether the agent takes connections from outside to servers in this pod, for servers of this
/// family.
#[inline(always)]
pub fn is_taking_inbound(ctx: &SockAddrContext, pod: &Pod, ipv4: bool) -> bool {
    let address = if ipv4 { mapped(LOOPBACK4) } else { LOOPBACK6 };
    is_listening(ctx, pod, &address, INBOUND_PORT)
}

/// Whether the agent takes datagrams in this pod, of the family of `destination`.
#[inline(always)]
pub fn is_taking_datagrams(ctx: &SockAddrContext, pod: &Pod, destination: &Words) -> bool {
    // Any token does: the agent's socket is bound to none.
    let token = if is_mapped(destination) {
        mapped(numbered_token_address(0).to_be())
    } else {
        words(token_address6(0))
    };
    let (mut tuple, size) = tuple(&token, pod.datagram_port as u16);
    // SAFETY: as above.
    let socket = unsafe {
        bpf_sk_lookup_udp(
            ctx.as_ptr(),
            &raw mut tuple,
            size,
            BPF_F_CURRENT_NETNS as u64,
            0,
        )
    };
    if socket.is_null() {
        return false;
    }
    let ours = storage::has_role(socket, SocketRole::Listener);
    // SAFETY: the reference that the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
    ours
}

/// What to look up a listener by, and its size.
#[inline(always)]
fn tuple(address: &Words, port: u16) -> (bpf_sock_tuple, u32) {
    let port = port.to_be();
    if is_mapped(address) {
        let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: 0,
            daddr: address[3],
            sport: 0,
            dport: port,
        };
        (
            bpf_sock_tuple {
                __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv4 },
            },
            size_of_val(&ipv4) as u32,
        )
    } else {
        let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: [0; 4],
            daddr: *address,
            sport: 0,
            dport: port,
        };
        (
            bpf_sock_tuple {
                __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 },
            },
            size_of_val(&ipv6) as u32,
        )
    }
}
