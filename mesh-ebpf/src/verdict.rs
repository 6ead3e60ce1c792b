//! What can become of a call that names a destination, and what lets it through untouched.

use aya_ebpf::{
    bindings::bpf_sock,
    btf_maps::lpm_trie::Key,
    helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid, bpf_set_retval},
    programs::SockAddrContext,
};
use mesh_common::{
    Counter, Event, EventKind, ExclusionData, ON_AGENT_DOWN_CLOSED, PROTOCOL_TCP, PROTOCOL_UDP,
    Pod, pod_flags,
};

use crate::{
    address::{Words, bytes, is_local},
    maps::{EVENTS, EXCLUSIONS, count},
};

/// What programs on connect and sendmsg return.
pub const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `ECONNREFUSED` of include/uapi/asm-generic/errno.h.
const ECONNREFUSED: i32 = 111;

/// `SOCK_STREAM` and `SOCK_DGRAM` of include/linux/net.h.
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// What becomes of the call.
pub enum Verdict {
    /// It goes where it asked.
    Pass,
    /// It fails.
    Refuse,
    /// It goes here instead.
    Redirect { address: Words, port: u16 },
}

impl Verdict {
    /// Carries it out in an IPv4 hook.
    #[inline(always)]
    pub fn apply4(self, ctx: &SockAddrContext) -> i32 {
        match self {
            Self::Pass => ALLOW,
            Self::Refuse => refuse(),
            Self::Redirect { address, port } => {
                // SAFETY: connect4 and sendmsg4 may write these two fields.
                unsafe {
                    (*ctx.sock_addr).user_ip4 = address[3];
                    (*ctx.sock_addr).user_port = u32::from(port.to_be());
                }
                ALLOW
            }
        }
    }

    /// Carries it out in an IPv6 hook.
    #[inline(always)]
    pub fn apply6(self, ctx: &SockAddrContext) -> i32 {
        match self {
            Self::Pass => ALLOW,
            Self::Refuse => refuse(),
            Self::Redirect { address, port } => {
                // SAFETY: connect6 and sendmsg6 may write these fields.
                unsafe {
                    write_address6(ctx, &address);
                    (*ctx.sock_addr).user_port = u32::from(port.to_be());
                }
                ALLOW
            }
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

/// Whether the socket is one of TCP. MPTCP and SCTP are not.
#[inline(always)]
pub fn is_tcp(ctx: &SockAddrContext) -> bool {
    is(ctx, SOCK_STREAM, PROTOCOL_TCP)
}

/// Whether the socket is one of UDP.
#[inline(always)]
pub fn is_udp(ctx: &SockAddrContext) -> bool {
    is(ctx, SOCK_DGRAM, PROTOCOL_UDP)
}

#[inline(always)]
fn is(ctx: &SockAddrContext, kind: u32, protocol: u16) -> bool {
    // SAFETY: readable in every sock_addr hook.
    unsafe { (*ctx.sock_addr).type_ == kind && (*ctx.sock_addr).protocol == u32::from(protocol) }
}

/// The port that the call names, host order.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: readable in every sock_addr hook.
    u16::from_be(unsafe { (*ctx.sock_addr).user_port } as u16)
}

#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: no pointers involved. Without it the app would see EPERM.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REFUSE
}

/// Lets the call through, and counts why.
#[inline(always)]
pub fn pass(counter: Counter) -> Verdict {
    count(counter);
    Verdict::Pass
}

/// What the pod chose for a call that cannot be redirected.
#[inline(always)]
pub fn without_proxy(pod: &Pod, open: Counter, refused: Counter) -> Verdict {
    if pod.on_agent_down == ON_AGENT_DOWN_CLOSED {
        count(refused);
        Verdict::Refuse
    } else {
        pass(open)
    }
}

/// Why a call to this destination is nobody's business but the app's.
#[inline(always)]
pub fn exemption(
    pod: &Pod,
    socket: *mut bpf_sock,
    destination: &Words,
    port: u16,
) -> Option<Counter> {
    if is_local(destination) {
        return Some(Counter::Local);
    }
    if is_external_proxy(pod) {
        return Some(Counter::OwnSocket);
    }
    if pod.flags & pod_flags::EXCLUDES_PORTS != 0 && is_port_excluded(pod, port) {
        return Some(Counter::ExcludedPort);
    }
    if pod.flags & pod_flags::EXCLUDES_CIDRS != 0 && is_address_excluded(pod, *destination) {
        return Some(Counter::ExcludedCidr);
    }
    // SAFETY: the socket is the context's.
    if unsafe { (*socket).bound_dev_if } != 0 {
        return Some(Counter::BoundToDevice);
    }
    None
}

/// Whether the caller belongs to the pod's own proxy. Moving into a cgroup takes write access to
/// it, which pods do not have.
#[inline(always)]
fn is_external_proxy(pod: &Pod) -> bool {
    pod.proxy_cgroup != 0
        // SAFETY: no pointers involved; these hooks run in the caller's context.
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

/// Whether `port` is one of `ports`, in which 0 is none.
#[inline(always)]
pub fn has_port(ports: &[u16], port: u16) -> bool {
    port != 0 && ports.contains(&port)
}

/// A call that is to be redirected.
pub struct Call {
    pub netns_cookie: u64,
    pub destination: Words,
    pub port: u16,
}

impl Call {
    /// Nobody is there to redirect it to.
    #[inline(always)]
    pub fn agent_is_down(&self, pod: &Pod) -> Verdict {
        self.report(if pod.on_agent_down == ON_AGENT_DOWN_CLOSED {
            EventKind::Refused
        } else {
            EventKind::FailedOpen
        });
        without_proxy(pod, Counter::FailedOpen, Counter::Refused)
    }

    /// There is no room to remember where it wanted to go.
    #[inline(always)]
    pub fn map_is_full(&self, pod: &Pod) -> Verdict {
        self.report(EventKind::MapFull);
        without_proxy(pod, Counter::MapFullOpen, Counter::MapFullRefused)
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

/// The process (thread group) that makes the call.
#[inline(always)]
pub fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
