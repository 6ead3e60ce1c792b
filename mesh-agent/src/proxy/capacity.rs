//! How many connections and pipes there are descriptors for. Connections beyond that wait: without this one
//! would be accepted with the last descriptor, and then be reset for want of one towards its server.

use std::sync::LazyLock;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::occasionally::Occasionally;

/// Descriptors of a forwarded connection.
const PER_CONNECTION: u64 = 2;

/// The share of the limit kept for the agent's own: listeners, namespaces, maps, admin clients, and
/// one accepted connection waiting for each listener.
const RESERVED_SHARE: u64 = 80;
const LEAST_RESERVED: u64 = 128;

/// The share of the limit that makes the number of pipes, the least and the most of them.
const PIPES_SHARE: u64 = 160;
const LEAST_PIPES: u64 = 16;
const MOST_PIPES: u64 = 1024;

/// Sized at the first connection, when the limit has been raised as far as it goes.
static CONNECTIONS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(connections(limit())));
static PIPES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(pipes(limit()) as usize));

/// Room for one connection, until dropped. When there is none, says so and waits.
pub async fn room() -> Option<SemaphorePermit<'static>> {
    static SAID: Occasionally = Occasionally::new();
    if let Some(permit) = try_room() {
        return Some(permit);
    }
    if SAID.now() {
        tracing::error!(
            "as many connections are open as the open-files limit of this process allows \
             ({PER_CONNECTION} descriptors each); new ones wait until others end; raise the limit \
             (LimitNOFILE= in a systemd unit, --ulimit nofile= for a container)"
        );
    }
    // Never closed.
    CONNECTIONS.acquire().await.ok()
}

/// Room for one connection, or a flow of datagrams, if there is any.
pub fn try_room() -> Option<SemaphorePermit<'static>> {
    CONNECTIONS.try_acquire().ok()
}

/// Room for one pipe, until dropped; `None` when there is none.
pub fn pipe() -> Option<SemaphorePermit<'static>> {
    PIPES.try_acquire().ok()
}

fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

fn pipes(limit: u64) -> u64 {
    (limit / PIPES_SHARE).clamp(LEAST_PIPES, MOST_PIPES)
}

fn connections(limit: u64) -> usize {
    let reserved = (limit / RESERVED_SHARE).max(LEAST_RESERVED) + 2 * pipes(limit);
    let room = limit.saturating_sub(reserved) / PER_CONNECTION;
    usize::try_from(room).map_or(Semaphore::MAX_PERMITS, |room| {
        room.clamp(1, Semaphore::MAX_PERMITS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_descriptors_a_connection_and_some_in_reserve() {
        assert_eq!(connections(1024), 432);
        assert_eq!(connections(20_000), 9_750);
        assert_eq!(connections(10), 1);
        assert_eq!(connections(u64::MAX), Semaphore::MAX_PERMITS);
    }
}
