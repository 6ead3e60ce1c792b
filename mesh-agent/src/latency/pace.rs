//! How often something is done. Pure: time is passed in.

use std::time::{Duration, Instant};

/// Turns further ahead are not told apart: somebody may have left theirs, and they would never be made up for.
const FURTHEST: Duration = Duration::from_mins(10);

/// Turns that come evenly, and some at once after a time without any: the generic cell rate algorithm of ITU-T I.371.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From one turn to the next, on average.
    pub every: Duration,
    /// Turns at once, at most.
    pub at_once: u32,
}

impl Pace {
    /// Whether there is a turn `now`, which is taken. `next` is when it would be time if turns came evenly; `None` at first.
    pub fn take(self, next: &mut Option<Instant>, now: Instant) -> bool {
        let due = next.map_or(now, |next| next.max(now));
        let is_turn = due - now < self.every * self.at_once;
        if is_turn {
            *next = Some(due + self.every);
        }
        is_turn
    }

    /// When it is the turn of who asks `now`: there is one for each, in the order in which they ask.
    pub fn reserve(self, next: &mut Option<Instant>, now: Instant) -> Instant {
        let due = next.map_or(now, |next| next.clamp(now, now + FURTHEST));
        *next = Some(due + self.every);
        let ahead = self.every * self.at_once.saturating_sub(1);
        due.checked_sub(ahead).map_or(now, |turn| turn.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_evenly_or_some_at_once() {
        let pace = Pace {
            every: Duration::from_millis(1),
            at_once: 256,
        };
        let mut next = None;
        let begin = Instant::now();
        let at = |micros| begin + Duration::from_micros(micros);
        let many = (0..100_000).filter(|number| pace.take(&mut next, at(number * 25)));
        assert_eq!(many.count(), 2_500 + 256);
        let few = (10_000..10_050).filter(|number| pace.take(&mut next, at(number * 1_000)));
        assert_eq!(few.count(), 50);
        let at_once = (0..1_000).filter(|_| pace.take(&mut next, at(20_000_000)));
        assert_eq!(at_once.count(), 256);
    }

    #[test]
    fn those_who_wait_have_their_turns_in_order() {
        let pace = Pace {
            every: Duration::from_millis(100),
            at_once: 3,
        };
        let mut next = None;
        let begin = Instant::now();
        let turns: Vec<u128> = (0..6)
            .map(|_| (pace.reserve(&mut next, begin) - begin).as_millis())
            .collect();
        assert_eq!(turns, [0, 0, 0, 100, 200, 300]);
        let later = begin + Duration::from_secs(9);
        assert_eq!(pace.reserve(&mut next, later), later);
        let last = (0..100_000).map(|_| pace.reserve(&mut next, later)).max();
        assert!(last <= Some(later + FURTHEST), "{last:?}");
    }
}
