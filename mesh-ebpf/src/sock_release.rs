//! sock_release: counts redirected connects that never reached the proxy.
//!
//! There is nothing else to clean up: such a socket has no entry in `origin_dst_map` yet, and its
//! storage goes with it.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use mesh_common::{Counter, SocketRole};

use crate::{maps::count, storage};

/// sock_release programs must return 1.
const OK: i32 = 1;
/// `TCP_SYN_SENT` and `TCP_CLOSE` of include/net/tcp_states.h.
const SYN_SENT: u32 = 2;
const CLOSED: u32 = 7;

#[cgroup_sock(sock_release)]
pub fn mesh_release(ctx: SockContext) -> i32 {
    // SAFETY: readable in this hook.
    let tcp_state = unsafe { (*ctx.sock).state };
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
