//! What the handshakes of connections to one server took of late. Pure.
//!
//! A single one says little: its packets may have waited for a processor, or behind others, and all requests of
//! the next seconds would be told a wrong network. So it is the middle one of several that agree.

use std::time::Duration;

use arrayvec::ArrayVec;

/// Those that are remembered.
const KEPT: usize = 5;
/// So many that agree are believed.
const ENOUGH: usize = 3;
/// What two may differ by that agree, beside an eighth of the time.
const ROOM: Duration = Duration::from_micros(100);

/// The last ones that agree with each other.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    took: ArrayVec<Duration, KEPT>,
    /// Those in a row that took longer.
    longer: ArrayVec<Duration, ENOUGH>,
}

impl Handshakes {
    /// What they took: the middle one.
    pub fn middle(&self) -> Option<Duration> {
        middle(&self.took)
    }

    /// Whether there are so many that one alone says nothing against them.
    pub fn are_enough(&self) -> bool {
        self.took.len() >= ENOUGH
    }

    /// Whether one that took so long is like these.
    pub fn agree_with(&self, took: Duration) -> bool {
        self.middle().is_some_and(|middle| is_near(middle, took))
    }

    /// One more, by itself: it may have waited for something, and is only believed if it is not longer than several that are
    /// known, or if several in a row are. Whether it was believed.
    pub fn add_single(&mut self, took: Duration) -> bool {
        let is_longer = self.middle().is_some_and(|middle| took > middle);
        if !self.are_enough() || !is_longer || self.agree_with(took) {
            self.add_made(&[took]);
            return true;
        }
        self.longer.push(took);
        let are_enough = self.longer.is_full();
        if are_enough {
            let longer = self.longer.take();
            self.add_made(&longer);
        }
        are_enough
    }

    /// Whether another one is to be made after these, that were made just now one after the other.
    pub fn want_another(&self, made: &[Duration]) -> bool {
        let are_alike = made.iter().all(|&took| self.agree_with(took));
        let are_believed = are_alike && self.took.len() + made.len() >= ENOUGH;
        made.is_empty() || (made.len() < ENOUGH && !are_believed)
    }

    /// These were made just now: what most of them say counts, and what it contradicts is forgotten.
    pub fn add_made(&mut self, made: &[Duration]) {
        let Some(middle) = middle(made) else { return };
        self.longer.clear();
        if !self.agree_with(middle) {
            self.took.clear();
        }
        for &took in made.iter().filter(|&&took| is_near(middle, took)) {
            if self.took.is_full() {
                self.took.remove(0);
            }
            self.took.push(took);
        }
    }
}

/// Of an even number the lesser of the two in the middle.
fn middle(took: &[Duration]) -> Option<Duration> {
    let mut sorted: ArrayVec<Duration, KEPT> = took.iter().copied().take(KEPT).collect();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

fn is_near(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) <= one / 8 + ROOM
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// As the agent does: `next` is what the handshakes take that it makes.
    fn make(known: &mut Handshakes, next: impl IntoIterator<Item = u64>) -> usize {
        let mut made = Vec::new();
        let mut next = next.into_iter().map(micros);
        while known.want_another(&made) {
            made.extend(next.next());
        }
        known.add_made(&made);
        made.len()
    }

    #[test]
    fn one_is_enough_once_several_agree() {
        let mut known = Handshakes::default();
        assert_eq!(make(&mut known, [10_600, 10_300, 10_350]), 3);
        assert_eq!(known.middle(), Some(micros(10_350)));
        assert!(known.are_enough());
        assert_eq!(make(&mut known, [10_310, 99]), 1);
        // The one of a request's connection counts too.
        let mut known = Handshakes::default();
        known.add_made(&[micros(10_000)]);
        assert!(!known.are_enough());
        assert_eq!(make(&mut known, [10_300, 10_350]), 2);
        assert_eq!(known.middle(), Some(micros(10_300)));
    }

    #[test]
    fn one_that_waited_is_outvoted_and_a_network_that_is_slower_now_is_not() {
        let mut known = Handshakes::default();
        make(&mut known, [100, 110, 105]);
        assert_eq!(make(&mut known, [3_000, 102, 108]), 3);
        assert_eq!(known.middle(), Some(micros(105)));
        assert_eq!(make(&mut known, [10_200, 10_100, 10_150]), 3);
        assert_eq!(known.middle(), Some(micros(10_150)));
        assert_eq!(make(&mut known, [100, 110, 105]), 3);
        assert_eq!(known.middle(), Some(micros(105)));
    }

    #[test]
    fn several_of_requests_in_a_row_are_believed() {
        let mut known = Handshakes::default();
        assert!(known.add_single(micros(3_000)));
        assert!(known.add_single(micros(100)));
        make(&mut known, [105, 110, 100]);
        for took in [4_000, 4_100] {
            assert!(!known.add_single(micros(took)));
        }
        assert_eq!(known.middle(), Some(micros(105)));
        assert!(known.add_single(micros(120)));
        for took in [10_200, 10_100] {
            assert!(!known.add_single(micros(took)));
        }
        assert!(known.add_single(micros(10_150)));
        assert_eq!(known.middle(), Some(micros(10_150)));
        // A faster one did not wait.
        assert!(known.add_single(micros(100)));
        assert_eq!(known.middle(), Some(micros(100)));
    }

    #[test]
    fn what_is_believed_is_the_middle_one_also_if_the_others_are_just_near_it() {
        let mut known = Handshakes::default();
        assert_eq!(make(&mut known, [10_000, 11_300, 12_600]), 3);
        assert_eq!(known.middle(), Some(micros(11_300)));
        // One at the edge does not drive out those that agree with the others.
        let mut known = Handshakes::default();
        known.add_made(&[micros(10_000); KEPT]);
        known.add_made(&[micros(11_390), micros(10_050), micros(10_100)]);
        assert_eq!(known.middle(), Some(micros(10_050)));
    }

    proptest! {
        /// Whatever comes, the middle one of those made is near.
        #[test]
        fn with_nothing_known_most_decide(made in prop::array::uniform3(1_u64..100_000)) {
            let mut known = Handshakes::default();
            make(&mut known, made);
            let most = middle(&made.map(micros)).unwrap();
            prop_assert!(is_near(most, known.middle().unwrap()), "{known:?}");
        }

        /// If one of three at most waited, the network is what it is, whatever was known before.
        #[test]
        fn most_are_right(
            network in 1_u64..100_000,
            before in prop::collection::vec(1_u64..100_000, 0..8),
            late in 0_usize..3,
            wait in 0_u64..1_000_000,
            noise in prop::array::uniform3(0_u64..50),
        ) {
            let mut known = Handshakes::default();
            for took in before {
                known.add_made(&[micros(took)]);
            }
            let mut next = noise.map(|noise| network + noise);
            next[late] += wait;
            // Late by just what the network was slower before: then the next look tells.
            prop_assume!(late > 0 || !known.agree_with(micros(next[0])));
            make(&mut known, next);
            let is = known.middle().unwrap();
            // If they agree with what was known, that stays, and is so far off at the most.
            prop_assert!(is.abs_diff(micros(network)) <= micros(network / 4 + 400), "{is:?}");
        }
    }
}
