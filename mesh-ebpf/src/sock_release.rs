//! sock_release: removes what stands in `origin_dst_map` for a datagram socket, and counts
//! redirected connects that never reached the proxy. Those have no entry there yet, and their
//! storage goes with the socket.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use mesh_common::{Counter, PROTOCOL_UDP, SocketRole};

use crate::{datagram, maps::count, storage};

/// sock_release programs must return 1.
const OK: i32 = 1;
/// `TCP_SYN_SENT` and `TCP_CLOSE` of include/net/tcp_states.h.
const SYN_SENT: u32 = 2;
const CLOSED: u32 = 7;

#[cgroup_sock(sock_release)]
pub fn mesh_release(ctx: SockContext) -> i32 {
    // SAFETY: readable in this hook.
    let (protocol, tcp_state) = unsafe { ((*ctx.sock).protocol, (*ctx.sock).state) };
    if protocol == u32::from(PROTOCOL_UDP) {
        datagram::released(ctx.sock);
        return OK;
    }
    // Any other state follows a completed handshake, and need not pay for the look-up.
    if (tcp_state == SYN_SENT || tcp_state == CLOSED)
        && let Some(state) = storage::get(ctx.sock)
        && state.role == SocketRole::Client as u16
        && state.established == 0
    {
        count(Counter::NeverConnected);
    }
    OK
}
