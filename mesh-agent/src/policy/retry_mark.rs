//! The mark "failed, do not retry", on its way from an app's failed call to its own answer.
//!
//! In a tree of services where each level tries again, the last one is asked (tries per level)^levels
//! times; so only the level next to a failure is to try again ("Handling Overload", Site Reliability
//! Engineering, 2016, "Deciding to Retry"). An app need not pass the mark on by itself: if it passes on
//! the identifier of the request that it works on, the agent knows which of its answers a failure led to.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Requests that are remembered. When there are more, the mark is lost, and with it no request.
const MOST: usize = 4096;

/// For how long: an app answers before that, or its client has given up.
const LIFETIME: Duration = Duration::from_mins(1);

/// Requests of which a part failed for good, by the hash of their identifier.
#[derive(Debug, Default)]
pub struct Marks(Mutex<HashMap<u64, Instant>>);

impl Marks {
    /// A call that belongs to this request has failed, and is not to be tried again.
    pub fn add(&self, request: u64, now: Instant) {
        let mut marks = self.lock();
        if marks.len() >= MOST {
            marks.retain(|_, until| now < *until);
        }
        if marks.len() < MOST {
            marks.insert(request, now + LIFETIME);
        }
    }

    /// Whether a call that belongs to this request has failed so; forgets it.
    pub fn take(&self, request: u64, now: Instant) -> bool {
        let until = self.lock().remove(&request);
        until.is_some_and(|until| now < until)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Instant>> {
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
        fn a_mark_is_for_one_request_for_a_while(
            events in prop::collection::vec((0..8_u64, any::<bool>(), 0..40_u64), 1..200),
        ) {
            let marks = Marks::default();
            let mut now = Instant::now();
            let mut added: HashMap<u64, Instant> = HashMap::new();
            for (request, is_added, passed) in events {
                now += Duration::from_secs(passed);
                if is_added {
                    marks.add(request, now);
                    added.insert(request, now);
                } else {
                    let at = added.remove(&request);
                    let expected = at.is_some_and(|at| now < at + LIFETIME);
                    prop_assert_eq!(marks.take(request, now), expected);
                }
            }
        }
    }

    #[test]
    fn old_ones_make_room_and_there_are_never_too_many() {
        let marks = Marks::default();
        let now = Instant::now();
        for request in 0..2 * MOST as u64 {
            marks.add(request, now);
        }
        assert_eq!(marks.lock().len(), MOST);
        let later = now + LIFETIME;
        marks.add(u64::MAX, later);
        assert_eq!(marks.lock().len(), 1);
        assert!(marks.take(u64::MAX, later));
    }
}
