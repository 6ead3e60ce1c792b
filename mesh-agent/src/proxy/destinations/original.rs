//! Destinations whose only server is the address that an app connects to, made when they are used.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use lru::LruCache;

use super::Destination;
use crate::proxy::idleness::Idleness;

/// Addresses of one destination without endpoints, or of all that are not listed, that are
/// remembered: what is known of others is forgotten, the longest unused first.
const MOST_ADDRESSES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// What is known of the addresses that apps connect to.
#[derive(Debug)]
pub struct OriginalServers(Mutex<LruCache<SocketAddr, Known>>);

#[derive(Debug)]
struct Known {
    destination: Arc<Destination>,
    idleness: Idleness,
}

impl OriginalServers {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Mutex::new(LruCache::new(MOST_ADDRESSES)))
    }

    /// That of this address, which is `made` if nothing is known of it.
    pub fn get(
        &self,
        address: SocketAddr,
        made: impl FnOnce(Instant) -> Destination,
    ) -> Arc<Destination> {
        let mut known = self.lock();
        let known = known.get_or_insert_mut(address, || {
            let now = Instant::now();
            Known {
                destination: Arc::new(made(now)),
                idleness: Idleness::new(now),
            }
        });
        known.idleness.used();
        Arc::clone(&known.destination)
    }

    /// Forgets what was not used for long: no connection asked for it or has it.
    pub fn sweep(&self, now: Instant) {
        self.lock().retain(|_, known| {
            if Arc::strong_count(&known.destination) > 1 {
                known.idleness.used();
            }
            !known.idleness.is_over(now)
        });
    }

    /// All of them.
    pub fn list(&self) -> Vec<Arc<Destination>> {
        let known = self.lock();
        let all = known.iter();
        all.map(|(_, known)| Arc::clone(&known.destination))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<SocketAddr, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
