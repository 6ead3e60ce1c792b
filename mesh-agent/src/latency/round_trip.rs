//! What the network takes to a server and back, apart from what the server takes. Pure: time is passed in.
//!
//! The acknowledgement of a request tells it only if the server's kernel sent it at once. Kernels hold it back
//! while they expect an answer to go with it, for 40 ms at the most (`TCP_DELACK_MIN` of include/net/tcp.h), or until
//! the server reads, so that the round trips that the kernel measures contain the server's time. The
//! handshake has no such thing: its round trip is the network's alone. The kernel keeps the shortest of a
//! connection for five minutes, which on a kept connection hides a network that has become slower. So the round trip of
//! a new connection counts for all to the same server, for a while; and if there is doubt and no new connection,
//! one is asked for.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// For how long the round trip of a new connection counts for the others.
const FRESH: Duration = Duration::from_secs(30);
/// How often a new connection is asked for at the most.
const PATIENCE: Duration = Duration::from_secs(10);
/// An acknowledgement that comes so long before the answer did not wait for it.
const APART: Duration = Duration::from_micros(300);
/// Round trips that are this much longer than the shortest are in doubt.
const DOUBT: Duration = Duration::from_millis(1);

/// What is known of one server. Shared by all threads; a race costs a figure.
#[derive(Debug, Default)]
pub struct RoundTrip {
    /// Of the last new connection, in nanoseconds, and when, in milliseconds from 1 on.
    fresh: AtomicU64,
    at: AtomicU64,
    is_in_doubt: AtomicBool,
}

/// What one request says of it.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// The connection's shortest, as the kernel has it.
    pub least: Duration,
    /// It is the first on its connection, so that `least` is the handshake's.
    pub is_new: bool,
    /// From the device to the acknowledgement.
    pub acknowledged: Option<Duration>,
    /// From the acknowledgement to the answer.
    pub gap: Duration,
}

impl RoundTrip {
    /// What the network takes at most, for a request that was answered like this. `now` is since any time in the
    /// past.
    pub fn bound(&self, answered: Answered, now: Duration) -> Duration {
        let millis = now.as_millis() as u64 + 1;
        let Answered { least, is_new, .. } = answered;
        if is_new && !least.is_zero() {
            self.fresh.store(least.as_nanos() as u64, Ordering::Relaxed);
            self.at.store(millis, Ordering::Relaxed);
            self.is_in_doubt.store(false, Ordering::Relaxed);
            return least;
        }
        let at = self.at.load(Ordering::Relaxed);
        let age = Duration::from_millis(millis.saturating_sub(at));
        let bound = if at > 0 && age < FRESH {
            Duration::from_nanos(self.fresh.load(Ordering::Relaxed))
        } else {
            least
        };
        let Some(acknowledged) = answered.acknowledged else {
            return bound;
        };
        if acknowledged > 2 * bound + DOUBT {
            if at == 0 || age >= PATIENCE {
                self.is_in_doubt.store(true, Ordering::Relaxed);
            }
            return bound;
        }
        if answered.gap > APART {
            acknowledged
        } else {
            bound
        }
    }

    /// Whether a new connection would tell; once.
    pub fn wants_new_connection(&self) -> bool {
        self.is_in_doubt.load(Ordering::Relaxed) && self.is_in_doubt.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn kept(acknowledged: Duration, gap: Duration) -> Answered {
        Answered {
            least: MILLI / 10,
            is_new: false,
            acknowledged: Some(acknowledged),
            gap,
        }
    }

    fn new(least: Duration) -> Answered {
        Answered {
            least,
            is_new: true,
            ..kept(least, Duration::ZERO)
        }
    }

    #[test]
    fn a_network_that_becomes_slower_is_noticed_on_kept_connections() {
        let round_trip = RoundTrip::default();
        let mut now = Duration::from_secs(100);
        assert_eq!(round_trip.bound(new(MILLI / 10), now), MILLI / 10);
        now += 11 * 1_000 * MILLI;
        // With the answer: the network or the server.
        let late = kept(20 * MILLI, Duration::ZERO);
        assert_eq!(round_trip.bound(late, now), MILLI / 10);
        assert!(round_trip.wants_new_connection());
        assert!(!round_trip.wants_new_connection());
        assert_eq!(round_trip.bound(new(20 * MILLI), now), 20 * MILLI);
        assert_eq!(round_trip.bound(late, now), 20 * MILLI);
        assert!(!round_trip.wants_new_connection());
        // And what is not known any more is asked for again.
        now += FRESH;
        assert_eq!(round_trip.bound(late, now), MILLI / 10);
        assert!(round_trip.wants_new_connection());
    }

    #[test]
    fn an_acknowledgement_that_came_at_once_says_it_itself() {
        let round_trip = RoundTrip::default();
        let now = Duration::from_secs(1);
        let at_once = kept(MILLI, 10 * MILLI);
        assert_eq!(round_trip.bound(at_once, now), MILLI);
        // This one was held back.
        let held = kept(5 * MILLI, 10 * MILLI);
        assert_eq!(round_trip.bound(held, now), MILLI / 10);
    }
}
