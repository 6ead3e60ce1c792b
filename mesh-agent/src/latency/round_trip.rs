//! What the network takes to a server and back, apart from what the server takes. Pure: time is passed in.
//!
//! The acknowledgement of a request tells it only if the server's kernel sent it at once. Kernels hold it back
//! while they expect an answer to go with it, for 40 ms at the most (`TCP_DELACK_MIN` of include/net/tcp.h), or until
//! the server reads, so that the round trips that the kernel measures contain the server's time. The
//! handshake has no such thing: its round trip is the network's alone. The kernel keeps the shortest of a
//! connection for five minutes: until then it hides, on a kept connection, a network that has become slower, and after
//! that it may have nothing but acknowledgements that came with answers. So the round trips of
//! new connections count for all to the same server, for a while; and if there is doubt and no new connection,
//! some are asked for.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::handshakes::Handshakes;

/// For how long the round trips of new connections count for the others.
const FRESH: Duration = Duration::from_secs(30);
/// How often new connections are asked for at the most.
const PATIENCE: Duration = Duration::from_secs(10);
/// An acknowledgement that comes so long before the answer did not wait for it.
const APART: Duration = Duration::from_micros(300);
/// Round trips that are this much longer than the shortest are in doubt.
const DOUBT: Duration = Duration::from_millis(1);

/// What is known of one server. Shared by all threads; a race costs a figure.
#[derive(Debug, Default)]
pub struct RoundTrip {
    handshakes: Mutex<Handshakes>,
    /// What they say, in nanoseconds, and when the last of them was, in milliseconds from 1 on.
    fresh: AtomicU64,
    at: AtomicU64,
    /// When there were new connections last that will do, or some were asked for, likewise.
    asked: AtomicU64,
    is_in_doubt: AtomicBool,
    /// When it has its turn for new connections, likewise.
    turn: AtomicU64,
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
    /// A connection was made for a request, and its handshake took so long. `now` is since any time in the past, but always
    /// the same.
    pub fn handshake(&self, took: Duration, now: Duration) {
        let mut known = self.handshakes();
        let is_alike = known.agree_with(took);
        if !known.add_single(took) {
            self.doubt(now);
            return;
        }
        self.publish(&known, now);
        if is_alike && known.are_enough() {
            self.settle(now);
        }
    }

    /// Whether one more connection is to be made for its handshake only, after those that `took` so long.
    pub fn wants_another(&self, took: &[Duration]) -> bool {
        self.handshakes().want_another(took)
    }

    /// Connections were made for their handshakes only, one after the other, and `took` so long.
    pub fn handshakes_made(&self, took: &[Duration], now: Duration) {
        let mut known = self.handshakes();
        known.add_made(took);
        self.publish(&known, now);
        self.settle(now);
    }

    /// Nobody asks for a while.
    fn settle(&self, now: Duration) {
        self.asked.store(millis(now), Ordering::Relaxed);
        self.is_in_doubt.store(false, Ordering::Relaxed);
        self.turn.store(0, Ordering::Relaxed);
    }

    fn publish(&self, known: &Handshakes, now: Duration) {
        if let Some(middle) = known.middle() {
            let middle = middle.as_nanos() as u64;
            self.fresh.store(middle, Ordering::Relaxed);
            self.at.store(millis(now), Ordering::Relaxed);
        }
    }

    fn handshakes(&self) -> MutexGuard<'_, Handshakes> {
        let known = self.handshakes.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// What the network takes at most, for a request that was answered like this.
    pub fn bound(&self, answered: Answered, now: Duration) -> Duration {
        let Answered { least, gap, .. } = answered;
        if answered.is_new && !least.is_zero() {
            self.handshake(least, now);
            return self.known(least, now);
        }
        let bound = self.known(least, now);
        let Some(acknowledged) = answered.acknowledged else {
            return bound;
        };
        let is_late = acknowledged > 2 * bound + DOUBT;
        let is_apart = gap > APART;
        // Nothing can be faster than the network; and what came with the answer says nothing of it.
        let is_early = acknowledged + APART < bound;
        if is_late || is_early || (!is_apart && acknowledged > DOUBT) {
            self.doubt(now);
        }
        if is_apart && !is_late {
            acknowledged
        } else {
            bound
        }
    }

    /// Whether a handshake was ever seen.
    pub fn is_known(&self) -> bool {
        self.at.load(Ordering::Relaxed) > 0
    }

    /// What is known of it without the request, on a connection whose shortest is `least`.
    fn known(&self, least: Duration, now: Duration) -> Duration {
        let at = self.at.load(Ordering::Relaxed);
        if at == 0 {
            return least;
        }
        let fresh = Duration::from_nanos(self.fresh.load(Ordering::Relaxed));
        if is_within(FRESH, at, now) || least.is_zero() {
            fresh
        } else {
            fresh.min(least)
        }
    }

    fn doubt(&self, now: Duration) {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked > 0 && is_within(PATIENCE, asked, now) {
            return;
        }
        let now = millis(now);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        // Of several threads one asks.
        if self.asked.compare_exchange(asked, now, set, get).is_ok() {
            self.is_in_doubt.store(true, Ordering::Relaxed);
        }
    }

    /// Whether connections are to be made `now` for their handshakes, which would tell: once, when it is its turn, which `turn`
    /// says if there is doubt, and if some `may` be made then.
    pub fn wants_handshake(
        &self,
        now: Duration,
        turn: impl FnOnce() -> Duration,
        may: impl FnOnce() -> bool,
    ) -> bool {
        if !self.is_in_doubt.load(Ordering::Relaxed) {
            return false;
        }
        let mut due = self.turn.load(Ordering::Relaxed);
        if due == 0 {
            due = millis(turn());
            self.turn.store(due, Ordering::Relaxed);
        }
        let is_due = millis(now) >= due && may() && self.is_in_doubt.swap(false, Ordering::Relaxed);
        if is_due {
            self.turn.store(0, Ordering::Relaxed);
        }
        is_due
    }
}

/// Never 0, which stands for never.
const fn millis(now: Duration) -> u64 {
    now.as_millis() as u64 + 1
}

/// Whether `since` is no longer ago than this. What lies ahead is not.
fn is_within(span: Duration, since: u64, now: Duration) -> bool {
    let age = millis(now).checked_sub(since);
    age.is_some_and(|age| Duration::from_millis(age) < span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

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
        let mut now = 100 * SECOND;
        assert_eq!(round_trip.bound(new(MILLI / 10), now), MILLI / 10);
        now += PATIENCE;
        // With the answer: the network or the server.
        let late = kept(20 * MILLI, Duration::ZERO);
        assert_eq!(round_trip.bound(late, now), MILLI / 10);
        assert!(round_trip.wants_handshake(now, || now, || true));
        assert!(!round_trip.wants_handshake(now, || now, || true));
        round_trip.handshakes_made(&[18 * MILLI; 3], now);
        // And it stays noticed as long as there are requests.
        for _ in 0..100 {
            now += SECOND;
            assert_eq!(round_trip.bound(late, now), 18 * MILLI);
            if round_trip.wants_handshake(now, || now, || true) {
                round_trip.handshakes_made(&[18 * MILLI; 3], now);
            }
        }
        // What is not known any more is asked for again.
        now += FRESH;
        assert_eq!(round_trip.bound(late, now), MILLI / 10);
        assert!(round_trip.wants_handshake(now, || now, || true));
    }

    #[test]
    fn a_network_that_becomes_faster_is_noticed() {
        let round_trip = RoundTrip::default();
        let mut now = 100 * SECOND;
        round_trip.handshakes_made(&[20 * MILLI; 3], now);
        // Of a server that takes no time, so that it is no doubt of the server's.
        let early = kept(MILLI / 5, Duration::ZERO);
        now += PATIENCE;
        round_trip.bound(early, now);
        assert!(round_trip.wants_handshake(now, || now, || true));
        round_trip.handshakes_made(&[MILLI / 10; 3], now);
        assert_eq!(round_trip.bound(early, now), MILLI / 10);
    }

    #[test]
    fn one_connection_whose_handshake_took_long_says_nothing_against_several() {
        let round_trip = RoundTrip::default();
        let mut now = 100 * SECOND;
        let with_answer = kept(5 * MILLI, Duration::ZERO);
        // The very first one may be such.
        round_trip.bound(new(3 * MILLI), now);
        assert_eq!(round_trip.bound(with_answer, now), 3 * MILLI);
        assert!(round_trip.wants_handshake(now, || now, || true));
        assert!(round_trip.wants_another(&[MILLI / 10]));
        assert!(round_trip.wants_another(&[MILLI / 10, MILLI / 9]));
        let made = [MILLI / 10, MILLI / 9, MILLI / 8];
        assert!(!round_trip.wants_another(&made));
        round_trip.handshakes_made(&made, now);
        assert_eq!(round_trip.bound(with_answer, now), MILLI / 9);
        assert_eq!(round_trip.bound(new(3 * MILLI), now), MILLI / 9);
        now += PATIENCE;
        assert!(!round_trip.wants_handshake(now, || now, || true));
        assert_eq!(round_trip.bound(new(4 * MILLI), now), MILLI / 9);
        assert!(round_trip.wants_handshake(now, || now, || true));
        // Three in a row are another network; and what is faster was not held up by anything.
        assert_eq!(round_trip.bound(new(4 * MILLI), now), 4 * MILLI);
        assert_eq!(round_trip.bound(new(MILLI), now), MILLI);
    }

    #[test]
    fn acknowledgements_that_always_wait_for_answers_are_worth_a_connection_now_and_then() {
        let round_trip = RoundTrip::default();
        let late = kept(5 * MILLI, Duration::ZERO);
        let mut asked = 0;
        // Also if none comes about.
        for milli in 0..100_000 {
            let now = milli * MILLI;
            round_trip.bound(late, now);
            asked += u32::from(round_trip.wants_handshake(now, || now, || true));
        }
        assert_eq!(asked, 10);
    }

    #[test]
    fn the_kernel_may_know_nothing_but_late_acknowledgements() {
        let round_trip = RoundTrip::default();
        let now = 100 * SECOND;
        let late = Answered {
            least: 5 * MILLI,
            ..kept(5 * MILLI, Duration::ZERO)
        };
        round_trip.bound(late, now);
        assert!(round_trip.wants_handshake(now, || now, || true));
        round_trip.handshakes_made(&[MILLI / 10; 3], now);
        // One that is long ago is still better than that.
        assert_eq!(round_trip.bound(late, now + 2 * FRESH), MILLI / 10);
    }

    #[test]
    fn an_acknowledgement_that_came_at_once_says_it_itself() {
        let round_trip = RoundTrip::default();
        let at_once = kept(MILLI, 10 * MILLI);
        assert_eq!(round_trip.bound(at_once, SECOND), MILLI);
        assert!(!round_trip.wants_handshake(SECOND, || SECOND, || true));
        // This one was held back.
        let held = kept(5 * MILLI, 10 * MILLI);
        assert_eq!(round_trip.bound(held, SECOND), MILLI / 10);
        assert!(round_trip.wants_handshake(SECOND, || SECOND, || true));
    }

    #[test]
    fn a_time_that_lies_ahead_is_no_reason_to_stop_looking() {
        let round_trip = RoundTrip::default();
        let now = 100 * SECOND;
        round_trip.bound(new(MILLI / 10), now + 3600 * SECOND);
        let late = kept(20 * MILLI, Duration::ZERO);
        for second in 1..3000 {
            round_trip.bound(late, now + second * SECOND);
            if round_trip.wants_handshake(now, || now, || true) {
                return;
            }
        }
        panic!("in 50 minutes no handshake was asked for");
    }

    /// Thousands of servers, of which nothing is known and that all have requests: all have their turn.
    #[test]
    fn of_many_servers_each_is_asked_after_a_while_and_never_too_many_at_once() {
        let book = crate::latency::Book::default();
        let servers: Vec<RoundTrip> = (0..1_000).map(|_| RoundTrip::default()).collect();
        let begin = std::time::Instant::now();
        let late = kept(20 * MILLI, Duration::ZERO);
        let mut asked = vec![0; servers.len()];
        for second in 0..120_u32 {
            let instant = begin + second * SECOND;
            // As the turns are counted.
            let now = book.age(instant);
            let mut at_once = 0;
            for (server, asked) in servers.iter().zip(&mut asked) {
                server.bound(late, now);
                let turn = || book.handshake_turn(instant);
                let may = || book.may_shake_hands(instant);
                if server.wants_handshake(now, turn, may) {
                    server.handshakes_made(&[18 * MILLI; 3], now);
                    *asked += 1;
                    at_once += 1;
                }
            }
            // One too many where a turn and a second are the same.
            assert!(at_once <= 11, "{at_once} at {second}");
        }
        assert!(asked.iter().all(|count| *count > 0), "{asked:?}");
    }

    /// All have had their turns, and no requests since.
    #[test]
    fn turns_that_were_not_taken_do_not_add_up() {
        let book = crate::latency::Book::default();
        let servers: Vec<RoundTrip> = (0..1_000).map(|_| RoundTrip::default()).collect();
        let begin = std::time::Instant::now();
        let ask = |server: &RoundTrip, now: Duration| {
            server.bound(kept(20 * MILLI, Duration::ZERO), now);
            let turn = || book.handshake_turn(begin + now);
            server.wants_handshake(now, turn, || book.may_shake_hands(begin + now))
        };
        let at_once = servers.iter().filter(|server| ask(server, SECOND));
        assert_eq!(at_once.count(), 10);
        let later = servers.iter().filter(|server| ask(server, 200 * SECOND));
        assert_eq!(later.count(), 10);
    }
}
