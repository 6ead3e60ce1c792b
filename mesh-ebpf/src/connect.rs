//! connect4 and connect6: the verdict on every TCP connect of an enrolled pod.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie,
        bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval,
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use mesh_common::{
    Counter, Event, EventKind, ExclusionData, ON_AGENT_DOWN_CLOSED, Origin, PROTOCOL_TCP, Pod,
    SocketRole, capture, pod_flags,
};

use crate::{
    address::{Words, bytes, is_local, is_mapped, mapped},
    listener::proxy_address,
    maps::{EVENTS, EXCLUSIONS, PODS, count, origins_full},
    storage,
};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `ECONNREFUSED` of include/uapi/asm-generic/errno.h.
const ECONNREFUSED: i32 = 111;
/// `SOCK_STREAM` of include/linux/net.h.
const SOCK_STREAM: u32 = 1;

enum Verdict {
    Pass,
    Refuse,
    Redirect { address: Words, port: u16 },
}

#[cgroup_sock_addr(connect4)]
pub fn mesh_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; these fields are readable in connect4.
    let (address, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    match verdict(&ctx, mapped(address), u16::from_be(port as u16)) {
        Verdict::Pass => ALLOW,
        Verdict::Refuse => refuse(),
        Verdict::Redirect { address, port } => {
            // SAFETY: connect4 may write these two fields.
            unsafe {
                (*ctx.sock_addr).user_ip4 = address[3];
                (*ctx.sock_addr).user_port = u32::from(port.to_be());
            }
            ALLOW
        }
    }
}

#[cgroup_sock_addr(connect6)]
pub fn mesh_connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; these fields are readable in connect6.
    let (address, port) = unsafe { (read_address6(&ctx), (*ctx.sock_addr).user_port) };
    match verdict(&ctx, address, u16::from_be(port as u16)) {
        Verdict::Pass => ALLOW,
        Verdict::Refuse => refuse(),
        Verdict::Redirect { address, port } => {
            // SAFETY: connect6 may write these fields, a word at a time.
            unsafe {
                write_address6(&ctx, &address);
                (*ctx.sock_addr).user_port = u32::from(port.to_be());
            }
            ALLOW
        }
    }
}

/// Reads `user_ip6` word by word: the verifier takes no other width here.
///
/// # Safety
/// The context must be that of an IPv6 hook.
#[inline(always)]
pub unsafe fn read_address6(ctx: &SockAddrContext) -> Words {
    // SAFETY: see above; volatile keeps the compiler from joining the loads.
    unsafe {
        let source = (&raw const (*ctx.sock_addr).user_ip6).cast::<u32>();
        [
            source.read_volatile(),
            source.add(1).read_volatile(),
            source.add(2).read_volatile(),
            source.add(3).read_volatile(),
        ]
    }
}

/// Writes `user_ip6` word by word.
///
/// # Safety
/// The context must be that of an IPv6 hook that may write the address.
#[inline(always)]
pub unsafe fn write_address6(ctx: &SockAddrContext, address: &Words) {
    // SAFETY: see above; volatile keeps the compiler from joining the stores.
    unsafe {
        let target = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
        target.write_volatile(address[0]);
        target.add(1).write_volatile(address[1]);
        target.add(2).write_volatile(address[2]);
        target.add(3).write_volatile(address[3]);
    }
}

#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: no pointers involved. Without it the app would see EPERM.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REFUSE
}

#[inline(always)]
fn pass(counter: Counter) -> Verdict {
    count(counter);
    Verdict::Pass
}

#[inline(always)]
fn verdict(ctx: &SockAddrContext, destination: Words, port: u16) -> Verdict {
    // SAFETY: readable in every sock_addr hook.
    let (kind, protocol) = unsafe { ((*ctx.sock_addr).type_, (*ctx.sock_addr).protocol) };
    if kind != SOCK_STREAM || protocol != u32::from(PROTOCOL_TCP) {
        return Verdict::Pass;
    }
    // SAFETY: the helper takes this program's context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: entries are freed after an RCU grace period, which this program runs within.
    let Some(pod) = (unsafe { PODS.get(netns_cookie) }) else {
        return Verdict::Pass;
    };
    // SAFETY: every sock_addr context has a socket.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if let Some(state) = storage::get(socket) {
        if state.role == SocketRole::Upstream as u16 {
            return pass(Counter::OwnSocket);
        }
        // What an earlier connect on this socket left is void from here on.
        if state.role == SocketRole::Client as u16 && state.established == 0 {
            count(Counter::NeverConnected);
        }
        state.role = SocketRole::None as u16;
    }
    if pod.capture & capture::OUTBOUND == 0 {
        return pass(Counter::NotCaptured);
    }
    if is_local(&destination) {
        return pass(Counter::Local);
    }
    if is_external_proxy(pod) {
        return pass(Counter::OwnSocket);
    }
    if pod.flags & pod_flags::EXCLUDES_PORTS != 0 && is_port_excluded(pod, port) {
        return pass(Counter::ExcludedPort);
    }
    if pod.flags & pod_flags::EXCLUDES_CIDRS != 0 && is_address_excluded(pod, destination) {
        return pass(Counter::ExcludedCidr);
    }
    // SAFETY: the socket is the context's.
    if unsafe { (*socket).bound_dev_if } != 0 {
        return pass(Counter::BoundToDevice);
    }
    let connect = Connect {
        netns_cookie,
        destination,
        port,
    };
    if origins_full() {
        connect.report(EventKind::MapFull);
        return without_proxy(pod, Counter::MapFullOpen, Counter::MapFullRefused);
    }
    let Some(proxy) = proxy_address(ctx, pod, &destination, port) else {
        connect.report(if pod.on_agent_down == ON_AGENT_DOWN_CLOSED {
            EventKind::Refused
        } else {
            EventKind::FailedOpen
        });
        return without_proxy(pod, Counter::FailedOpen, Counter::Refused);
    };
    if !connect.remember(ctx, socket, &proxy, pod.proxy_port as u16) {
        return without_proxy(pod, Counter::NoMemory, Counter::NoMemory);
    }
    count(Counter::Redirected);
    Verdict::Redirect {
        address: proxy,
        port: pod.proxy_port as u16,
    }
}

/// What the pod chose for a connect that cannot be redirected.
#[inline(always)]
fn without_proxy(pod: &Pod, open: Counter, refused: Counter) -> Verdict {
    if pod.on_agent_down == ON_AGENT_DOWN_CLOSED {
        count(refused);
        Verdict::Refuse
    } else {
        pass(open)
    }
}

/// Whether the caller belongs to the pod's own proxy. Moving into a cgroup takes write access to
/// it, which pods do not have.
#[inline(always)]
fn is_external_proxy(pod: &Pod) -> bool {
    pod.proxy_cgroup != 0
        // SAFETY: no pointers involved; connect runs in the caller's context.
        && unsafe { bpf_get_current_ancestor_cgroup_id(pod.proxy_level as i32) } == pod.proxy_cgroup
}

#[inline(always)]
fn is_port_excluded(pod: &Pod, port: u16) -> bool {
    let data = ExclusionData::port(pod.exclusions_id, port);
    EXCLUSIONS
        .get(&Key::new(ExclusionData::PORT_BITS, data))
        .is_some()
}

#[inline(always)]
fn is_address_excluded(pod: &Pod, address: Words) -> bool {
    let data = ExclusionData::cidr(pod.exclusions_id, bytes(address));
    EXCLUSIONS
        .get(&Key::new(ExclusionData::ADDRESS_BITS, data))
        .is_some()
}

struct Connect {
    netns_cookie: u64,
    destination: Words,
    port: u16,
}

impl Connect {
    /// Leaves the original destination at the socket, for sockops. `false`: no memory.
    #[inline(always)]
    fn remember(
        &self,
        ctx: &SockAddrContext,
        socket: *mut bpf_sock,
        proxy: &Words,
        proxy_port: u16,
    ) -> bool {
        let Some(state) = storage::get_or_create(socket) else {
            return false;
        };
        state.origin = Origin {
            address: bytes(self.destination),
            port: self.port,
            accepted: 0,
            process: process(),
            // SAFETY: the helper takes this program's context.
            client_cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
            // SAFETY: no arguments.
            connected_at: unsafe { bpf_ktime_get_ns() },
        };
        state.proxy_address = bytes(*proxy);
        state.proxy_port = proxy_port;
        state.established = 0;
        state.role = SocketRole::Client as u16;
        true
    }

    /// Tells the agent's log; the counters are what counts.
    #[inline(always)]
    fn report(&self, kind: EventKind) {
        let event = Event {
            netns_cookie: self.netns_cookie,
            address: bytes(self.destination),
            kind: kind as u32,
            process: process(),
            port: u32::from(self.port),
            reserved: 0,
        };
        // A full buffer only means that nobody reads the log.
        let _unread = EVENTS.output(event, 0);
    }
}

#[inline(always)]
fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

// Keeps the v4 and v6 halves from drifting: a mapped destination must take the v4 path.
const _: () = assert!(is_mapped(&mapped(0)));
