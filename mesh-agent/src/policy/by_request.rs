//! What is known of requests that an app works on, until it has made the calls that belong to them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Requests that are remembered. When there are more, what is known of them is lost, and with it no request.
const MOST: usize = 4096;

/// For how long: an app answers before that, or its client has given up.
const LIFETIME: Duration = Duration::from_mins(1);

/// What is known of requests, by the hash of their identifier.
#[derive(Debug)]
pub struct ByRequest<T>(Mutex<HashMap<u64, (T, Instant)>>);

impl<T> Default for ByRequest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Copy> ByRequest<T> {
    /// This is known of a request from now on.
    pub fn add(&self, request: u64, known: T, now: Instant) {
        let mut all = self.lock();
        if all.len() >= MOST {
            all.retain(|_, (_, until)| now < *until);
        }
        if all.len() < MOST {
            all.insert(request, (known, now + LIFETIME));
        }
    }

    /// What is known of a request.
    pub fn get(&self, request: u64, now: Instant) -> Option<T> {
        let all = self.lock();
        let (known, until) = all.get(&request)?;
        (now < *until).then_some(*known)
    }

    /// What is known of a request; forgets it.
    pub fn take(&self, request: u64, now: Instant) -> Option<T> {
        let (known, until) = self.lock().remove(&request)?;
        (now < until).then_some(known)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (T, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
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
    fn old_ones_make_room_and_there_are_never_too_many() {
        let known = ByRequest::default();
        let now = Instant::now();
        for request in 0..2 * MOST as u64 {
            known.add(request, request, now);
        }
        assert_eq!(known.lock().len(), MOST);
        let later = now + LIFETIME;
        known.add(u64::MAX, u64::MAX, later);
        assert_eq!(known.lock().len(), 1);
        assert!(known.take(u64::MAX, later).is_some());
    }
}
