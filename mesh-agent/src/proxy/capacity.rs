//! How many connections there are descriptors for. Connections beyond that wait: without this one
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

/// Sized at the first connection, when the limit has been raised as far as it goes.
static CAPACITY: LazyLock<Semaphore> = LazyLock::new(|| {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    Semaphore::new(connections(limit))
});

/// Room for one connection, until dropped. When there is none, says so and waits.
pub async fn room() -> Option<SemaphorePermit<'static>> {
    static SAID: Occasionally = Occasionally::new();
    if let Ok(permit) = CAPACITY.try_acquire() {
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
    CAPACITY.acquire().await.ok()
}

fn connections(limit: u64) -> usize {
    let reserved = (limit / RESERVED_SHARE).max(LEAST_RESERVED);
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
        assert_eq!(connections(1024), 448);
        assert_eq!(connections(20_000), 9_875);
        assert_eq!(connections(10), 1);
        assert_eq!(connections(u64::MAX), Semaphore::MAX_PERMITS);
    }
}
