//! The sockops half of inbound capture: which servers listen in a pod, and whom the agent's
//! connections to them are for.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_NOEXIST, bpf_sock},
    btf_maps::lpm_trie::Key,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockOpsContext,
};
use core::intrinsics::AtomicOrdering;
use mesh_common::{
    Address, Counter, ExclusionData, INBOUND_PORT, InboundKey, InboundPeer, InboundPort,
    OUTBOUND_PORT, Pod, SocketRole, SocketState, capture, inbound_flags, pod_flags,
};

use crate::{
    address::{LOOPBACK6, bytes, is_loopback4, is_mapped, same, words},
    maps::{EXCLUSIONS, INBOUND_PEERS, count},
    origin,
    shared_maps::{INBOUND_PORTS, INBOUND_SOCKETS},
    storage,
};

/// Whether the agent leaves the servers on this port alone. Its own listeners are none.
#[inline(always)]
pub fn is_excluded(pod: &Pod, port: u16) -> bool {
    if port == OUTBOUND_PORT || port == INBOUND_PORT {
        return true;
    }
    if pod.flags & pod_flags::EXCLUDES_INBOUND_PORTS == 0 {
        return false;
    }
    let data = ExclusionData::inbound_port(pod.exclusions_id, port);
    EXCLUSIONS
        .get(&Key::new(ExclusionData::PORT_BITS, data))
        .is_some()
}

/// A socket of the pod listens from now on. `false`: it is none of ours.
#[inline(always)]
pub fn listening(ctx: &SockOpsContext, pod: &Pod, socket: *mut bpf_sock) -> bool {
    if pod.capture & capture::INBOUND == 0 {
        return false;
    }
    let (address, port) = origin::local(ctx);
    if is_excluded(pod, port) {
        return false;
    }
    let Some(state) = storage::get_or_create(socket) else {
        return false;
    };
    let is_rewritten = state.role == SocketRole::InboundBound as u16
        && same(&address, &words(state.proxy_address));
    let is_loopback = if is_mapped(&address) {
        is_loopback4(address[3])
    } else {
        same(&address, &LOOPBACK6)
    };
    if is_loopback && !is_rewritten {
        return false;
    }
    if !is_rewritten {
        state.origin.address = bytes(address);
        state.origin.port = port;
        state.proxy_address = [0; 16];
    }
    let key = key(ctx, state);
    let flags = u32::from(is_rewritten) * inbound_flags::REWRITTEN;
    if !add_listener(&key, bytes(address), flags) {
        count(Counter::InboundFull);
        state.role = SocketRole::None as u16;
        return false;
    }
    // SAFETY: the context is this program's own. Without it the server cannot be reached while the
    // agent is down; the rest works.
    let _unreachable = INBOUND_SOCKETS.update(key, unsafe { &mut *ctx.ops }, 0);
    state.role = SocketRole::InboundListening as u16;
    count(Counter::InboundListening);
    true
}

/// Counts one more listener. The agent may prune an entry that counts none at the same time, so it is
/// looked at once more.
#[inline(always)]
fn add_listener(key: &InboundKey, target: Address, flags: u32) -> bool {
    for _ in 0..2 {
        let new = InboundPort {
            listeners: 0,
            target,
            flags,
            reserved: 0,
        };
        let _exists = INBOUND_PORTS.insert(key, new, u64::from(BPF_NOEXIST));
        let Some(entry) = INBOUND_PORTS.get_ptr_mut(key) else {
            return false;
        };
        // SAFETY: the entry is freed after an RCU grace period, which this program runs within.
        unsafe {
            (*entry).target = target;
            (*entry).flags = (*entry).flags & inbound_flags::FOUND | flags;
        }
        add(entry, 1);
        if INBOUND_PORTS.get_ptr_mut(key).is_some() {
            return true;
        }
    }
    false
}

/// A listening socket closed.
#[inline(always)]
pub fn stopped_listening(ctx: &SockOpsContext, state: &mut SocketState) {
    if let Some(entry) = INBOUND_PORTS.get_ptr_mut(key(ctx, state)) {
        add(entry, u64::MAX);
    }
    // It may listen again.
    state.role = if same(&words(state.proxy_address), &[0; 4]) {
        SocketRole::None as u16
    } else {
        SocketRole::InboundBound as u16
    };
}

#[inline(always)]
fn key(ctx: &SockOpsContext, state: &SocketState) -> InboundKey {
    // SAFETY: the helper takes this program's context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    InboundKey::new(netns_cookie, state.origin.address, state.origin.port)
}

#[inline(always)]
fn add(entry: *mut InboundPort, difference: u64) {
    // SAFETY: as above; `listeners` is 8-aligned. The intrinsic, because the bpf target has no
    // compare-and-swap.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(
            &raw mut (*entry).listeners,
            difference,
        );
    }
}

/// The agent's handshake with a server completed: say whom it is for, before the last ACK leaves.
#[inline(always)]
pub fn connected(ctx: &SockOpsContext, state: &SocketState) {
    let peer = InboundPeer {
        peer_address: state.origin.address,
        local_address: state.proxy_address,
        peer_port: state.origin.port,
        local_port: state.proxy_port,
        reserved: 0,
        // SAFETY: the helper takes this program's context.
        cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
    };
    // Should the map be full, the server sees the agent's address.
    let _unnamed = INBOUND_PEERS.insert(origin::key_of_client(ctx), peer, 0);
}

/// A server accepted a connection, perhaps the agent's.
#[inline(always)]
pub fn accepted(ctx: &SockOpsContext, socket: *mut bpf_sock) {
    let key = origin::key_of_accepted(ctx);
    // SAFETY: a copy is taken.
    let Some(&peer) = (unsafe { INBOUND_PEERS.get(key) }) else {
        return;
    };
    let Some(state) = storage::get_or_create(socket) else {
        return;
    };
    state.origin.address = peer.peer_address;
    state.origin.port = peer.peer_port;
    state.proxy_address = peer.local_address;
    state.proxy_port = peer.local_port;
    state.role = SocketRole::InboundAccepted as u16;
    let _gone = INBOUND_PEERS.remove(key);
    count(Counter::InboundAccepted);
}

/// The agent's connection closed: perhaps it was never accepted.
#[inline(always)]
pub fn closed(ctx: &SockOpsContext) {
    let key = origin::key_of_client(ctx);
    // SAFETY: the helper takes this program's context; the reference is not used past the removal.
    let ours = unsafe {
        let cookie = bpf_get_socket_cookie(ctx.as_ptr());
        INBOUND_PEERS
            .get(key)
            .is_some_and(|peer| peer.cookie == cookie)
    };
    if ours {
        let _gone = INBOUND_PEERS.remove(key);
    }
}
