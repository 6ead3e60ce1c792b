//! What is known of requests that an app works on, until it has made the calls that belong to them.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lru::LruCache;

/// Requests that are remembered. When there are more, what is known of the oldest is lost, and with it no
/// request.
const MOST: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// For how long: an app answers before that, or its client has given up.
const LIFETIME: Duration = Duration::from_mins(1);

/// What is known of requests, by the hash of their identifier.
#[derive(Debug)]
pub struct ByRequest<T>(Mutex<LruCache<u64, (T, Instant)>>);

impl<T> Default for ByRequest<T> {
    fn default() -> Self {
        // Room is made when it is needed.
        let mut all = LruCache::unbounded();
        all.resize(MOST);
        Self(Mutex::new(all))
    }
}

impl<T: Copy> ByRequest<T> {
    /// This is known of a request from now on.
    pub fn add(&self, request: u64, known: T, now: Instant) {
        self.lock().put(request, (known, now + LIFETIME));
    }

    /// What is known of a request.
    pub fn get(&self, request: u64, now: Instant) -> Option<T> {
        let all = self.lock();
        let (known, until) = all.peek(&request)?;
        (now < *until).then_some(*known)
    }

    /// What is known of a request; forgets it.
    pub fn take(&self, request: u64, now: Instant) -> Option<T> {
        let (known, until) = self.lock().pop(&request)?;
        (now < until).then_some(known)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<u64, (T, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is taken was added before, less than a lifetime ago, and is taken once.
        #[test]
        fn what_is_known_is_for_one_request_for_a_while(
            events in prop::collection::vec((0..8_u64, any::<bool>(), 0..40_u64), 1..200),
        ) {
            let known = ByRequest::default();
            let mut now = Instant::now();
            let mut added: HashMap<u64, Instant> = HashMap::new();
            for (request, is_added, passed) in events {
                now += Duration::from_secs(passed);
                if is_added {
                    known.add(request, request, now);
                    added.insert(request, now);
                } else {
                    let at = added.remove(&request);
                    let expected = at.is_some_and(|at| now < at + LIFETIME);
                    let expected = expected.then_some(request);
                    prop_assert_eq!(known.get(request, now), expected);
                    prop_assert_eq!(known.take(request, now), expected);
                    prop_assert_eq!(known.take(request, now), None);
                }
            }
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let known = ByRequest::default();
        let now = Instant::now();
        let most = MOST.get() as u64;
        for request in 0..3 * most {
            known.add(request, request, now);
        }
        assert_eq!(known.lock().len(), MOST.get());
        assert_eq!(known.get(3 * most - 1, now), Some(3 * most - 1));
        assert_eq!(known.get(2 * most, now), Some(2 * most));
        assert_eq!(known.get(2 * most - 1, now), None);
    }
}
