//! The verdict on a datagram, or on the connect of a datagram socket.
//!
//! Every destination of every socket gets an address of its own in the pod, its token. The agent
//! learns from it where a datagram wanted to go, and the app's kernel half where an answer comes
//! from, also when one socket talks to several servers at once and they answer in any order.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_NOEXIST, bpf_sock},
    helpers::{bpf_get_netns_cookie, bpf_get_prandom_u32},
    programs::SockAddrContext,
};
use mesh_common::{
    Counter, DATAGRAM_FLOWS, DatagramFlow, DatagramState, OriginKey, Pod, SocketRole, capture,
    numbered_token_address, pod_flags, token_address6,
};

use crate::{
    address::{Words, bytes, is_mapped, mapped, same, words},
    connect::origin,
    listener::is_taking_datagrams,
    maps::{ORIGIN_DST_MAP, PODS, count, origin_added, origin_removed, origins_full},
    storage,
    verdict::{Call, Verdict, exemption, has_port, pass, without_proxy},
};

/// How often to try for an address that no other flow of the pod has. With half of the range in use
/// one in 256 would still find none.
const ATTEMPTS: usize = 8;

/// The verdict on sending to `destination`.
#[inline(always)]
pub fn verdict(ctx: &SockAddrContext, destination: Words, port: u16) -> Verdict {
    // SAFETY: the helper takes this program's context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: entries are freed after an RCU grace period, which this program runs within.
    let Some(pod) = (unsafe { PODS.get(netns_cookie) }) else {
        return Verdict::Pass;
    };
    if !is_wanted(pod, port) {
        return Verdict::Pass;
    }
    // SAFETY: every sock_addr context has a socket.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if storage::has_role(socket, SocketRole::Upstream) {
        return pass(Counter::OwnSocket);
    }
    if let Some(reason) = exemption(pod, socket, &destination, port) {
        return pass(reason);
    }
    let call = Call {
        netns_cookie,
        destination,
        port,
    };
    let proxy_port = pod.datagram_port as u16;
    let has_tokens = is_mapped(&destination) || pod.flags & pod_flags::IPV6_TOKENS != 0;
    if !has_tokens || !is_taking_datagrams(ctx, pod, &destination) {
        return call.agent_is_down(pod);
    }
    let Some(state) = storage::datagrams_or_create(socket) else {
        return without_proxy(pod, Counter::NoMemory, Counter::NoMemory);
    };
    state.netns_cookie = netns_cookie;
    state.port = u32::from(proxy_port);
    match flow_to(ctx, state, &call) {
        Some(token) => Verdict::Redirect {
            address: token,
            port: proxy_port,
        },
        None => call.map_is_full(pod),
    }
}

#[inline(always)]
fn is_wanted(pod: &Pod, port: u16) -> bool {
    (pod.capture & capture::DNS != 0 && has_port(&pod.dns_ports, port))
        || has_port(&pod.udp_ports, port)
}

/// The token of the call's destination; a new one if this socket has not sent there lately.
#[inline(always)]
fn flow_to(ctx: &SockAddrContext, state: &mut DatagramState, call: &Call) -> Option<Words> {
    state.sequence += 1;
    let mut oldest = 0;
    let mut oldest_used = u32::MAX;
    for index in 0..DATAGRAM_FLOWS {
        let flow = &mut state.flows[index];
        if flow.port == call.port && same(&words(flow.address), &call.destination) {
            flow.used = state.sequence;
            return Some(words(flow.token));
        }
        let used = if flow.port == 0 { 0 } else { flow.used };
        if used < oldest_used {
            (oldest, oldest_used) = (index, used);
        }
    }
    if origins_full() {
        return None;
    }
    let token = new_token(ctx, state.port as u16, call)?;
    // The mask is for the verifier.
    let slot = &mut state.flows[oldest & (DATAGRAM_FLOWS - 1)];
    if slot.port != 0 {
        forget(state.netns_cookie, state.port as u16, slot);
        count(Counter::DatagramsForgotten);
    }
    *slot = DatagramFlow {
        address: bytes(call.destination),
        token: bytes(token),
        port: call.port,
        reserved: 0,
        used: state.sequence,
    };
    count(Counter::DatagramsRedirected);
    Some(token)
}

/// Takes an address that stands for nothing yet.
#[inline(always)]
fn new_token(ctx: &SockAddrContext, proxy_port: u16, call: &Call) -> Option<Words> {
    let origin = origin(ctx, call);
    for _ in 0..ATTEMPTS {
        let token = random_token(is_mapped(&call.destination));
        let key = OriginKey::datagrams(call.netns_cookie, bytes(token), proxy_port);
        if ORIGIN_DST_MAP
            .insert(key, origin, u64::from(BPF_NOEXIST))
            .is_ok()
        {
            origin_added();
            return Some(token);
        }
    }
    None
}

#[inline(always)]
fn random_token(ipv4: bool) -> Words {
    // SAFETY: no arguments.
    let low = unsafe { bpf_get_prandom_u32() };
    if ipv4 {
        return mapped(numbered_token_address(low).to_be());
    }
    // SAFETY: no arguments.
    let high = unsafe { bpf_get_prandom_u32() };
    words(token_address6(u64::from(high) << 32 | u64::from(low)))
}

/// The flow of this socket that a token stands for.
#[inline(always)]
pub fn flow_of(socket: *mut bpf_sock, token: &Words, port: u16) -> Option<&'static DatagramFlow> {
    let state = storage::datagrams(socket)?;
    if u32::from(port) != state.port {
        return None;
    }
    state
        .flows
        .iter()
        .find(|flow| flow.port != 0 && same(&words(flow.token), token))
}

/// The socket is gone, and so are its flows.
#[inline(always)]
pub fn released(socket: *mut bpf_sock) {
    if let Some(state) = storage::datagrams(socket) {
        for index in 0..DATAGRAM_FLOWS {
            let flow = &state.flows[index];
            if flow.port != 0 {
                forget(state.netns_cookie, state.port as u16, flow);
            }
        }
    }
}

#[inline(always)]
fn forget(netns_cookie: u64, proxy_port: u16, flow: &DatagramFlow) {
    let key = OriginKey::datagrams(netns_cookie, flow.token, proxy_port);
    if ORIGIN_DST_MAP.remove(key).is_ok() {
        origin_removed();
    }
}
