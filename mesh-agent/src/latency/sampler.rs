//! Which requests of a destination are measured. Pure: time is passed in.
//!
//! A share of them, at most so many in a second, so that it costs no more where there is more to do: if there were more
//! in the second before, every second, third, ... of them, so that they are spread over the second. And the first after a
//! second without one, so that a quiet destination has figures too.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// How many are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Which share of them: 0 to 1.
    pub share: f64,
    /// In a second at the most.
    pub most_per_second: u32,
}

/// Chooses the requests of one destination. Shared by all threads; a race makes it one more or one less.
#[derive(Debug, Default)]
pub struct Sampler {
    /// The present second, and in the lower half how many would have been chosen in it but for the limit.
    second: AtomicU64,
    /// How many of them were.
    chosen: AtomicU32,
    /// Of so many one is.
    stride: AtomicU32,
    /// When one was chosen last, in milliseconds.
    last: AtomicU64,
    /// So many are chosen whatever the rate says: somebody waits for them.
    wanted: AtomicU32,
}

impl Sampler {
    /// Whether a request is measured. `now` is since any time in the past, `chance` from 0 to 1.
    pub fn choose(&self, rate: Rate, now: Duration, chance: f64) -> bool {
        self.is_wanted()
            || ((chance < rate.share || self.is_quiet(rate, now)) && self.permits(rate, now))
    }

    /// Whether the next request is to be measured, whatever chance says: somebody waits for it, or none was for
    /// a second.
    pub fn is_due(&self, rate: Rate, now: Duration) -> bool {
        self.is_wanted() || self.is_quiet(rate, now)
    }

    /// Whether a request that chance has chosen, or that was due, is measured.
    pub fn takes(&self, rate: Rate, now: Duration) -> bool {
        self.is_wanted() || self.permits(rate, now)
    }

    /// Whether somebody waits for the next ones.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// One is measured: somebody waits for one less. Whether somebody did wait for it.
    pub fn served(&self) -> bool {
        let one_less = |wanted: u32| wanted.checked_sub(1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.is_wanted() && self.wanted.fetch_update(set, get, one_less).is_ok()
    }

    fn is_quiet(&self, rate: Rate, now: Duration) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        rate.share > 0.0 && (last == 0 || millis(now) >= last + 1_000)
    }

    fn permits(&self, rate: Rate, now: Duration) -> bool {
        if rate.share <= 0.0 {
            return false;
        }
        let seen = self.second.load(Ordering::Relaxed);
        // Another thread may have looked at the clock later.
        let second = now.as_secs().max(seen >> 32);
        let candidates = if seen >> 32 == second {
            seen as u32
        } else {
            let is_next = (seen >> 32) + 1 == second;
            let before = if is_next { seen as u32 } else { 0 };
            let stride = before.div_ceil(rate.most_per_second.max(1));
            self.stride.store(stride.max(1), Ordering::Relaxed);
            self.chosen.store(0, Ordering::Relaxed);
            0
        };
        let next = (second << 32) | u64::from(candidates.saturating_add(1));
        self.second.store(next, Ordering::Relaxed);
        let chosen = self.chosen.load(Ordering::Relaxed);
        let stride = self.stride.load(Ordering::Relaxed).max(1);
        if chosen >= rate.most_per_second || !candidates.is_multiple_of(stride) {
            return false;
        }
        self.chosen.store(chosen + 1, Ordering::Relaxed);
        // Other threads read it for each request: written only when it is another.
        if self.last.load(Ordering::Relaxed) != millis(now) {
            self.last.store(millis(now), Ordering::Relaxed);
        }
        true
    }

    /// Nobody waits any more.
    pub fn unwant(&self) {
        if self.is_wanted() {
            self.wanted.store(0, Ordering::Relaxed);
        }
    }

    /// The next `count` are chosen.
    pub fn want(&self, count: u32) {
        self.wanted.fetch_max(count, Ordering::Relaxed);
    }
}

impl Rate {
    /// How many requests pass until the next that is measured, for a `chance` from 0 to 1.
    pub fn gap(self, chance: f64) -> u32 {
        if self.share <= 0.0 {
            return u32::MAX;
        }
        if self.share >= 1.0 {
            return 0;
        }
        (chance.max(f64::MIN_POSITIVE).ln() / (1.0 - self.share).ln()) as u32
    }
}

/// Never 0, which stands for never.
fn millis(now: Duration) -> u64 {
    now.as_millis() as u64 + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The share is kept, and the most in each second, however requests come.
        #[test]
        fn share_and_limit_are_kept(
            share in 0.0..=1.0_f64,
            most_per_second in 1..200_u32,
            gaps in prop::collection::vec(0..5_000_u64, 1..3_000),
        ) {
            let rate = Rate { share, most_per_second };
            let sampler = Sampler::default();
            let mut micros = 0;
            let mut in_second = std::collections::HashMap::<u64, u32>::new();
            let mut candidates_in = std::collections::HashMap::<u64, u32>::new();
            let mut last = None::<u64>;
            for (number, gap) in gaps.iter().enumerate() {
                micros += gap;
                let now = Duration::from_micros(micros);
                let chance = (number as f64 * 0.618_033_988_7).fract();
                let second = now.as_secs();
                if chance < share {
                    *candidates_in.entry(second).or_default() += 1;
                }
                if sampler.choose(rate, now, chance) {
                    *in_second.entry(now.as_secs()).or_default() += 1;
                    let is_quiet = last.is_none_or(|last| micros >= last + 999_000);
                    prop_assert!(chance < share || is_quiet);
                    last = Some(micros);
                } else if share > 0.0 {
                    let full = in_second.get(&second).copied() >= Some(most_per_second);
                    // Or there were too many in the second before; of which one may have been due, which is not counted here.
                    let before = second.checked_sub(1).and_then(|before| candidates_in.get(&before));
                    let were_many = before.is_some_and(|before| before + 1 > most_per_second);
                    prop_assert!(chance >= share || full || were_many);
                }
            }
            prop_assert!(in_second.values().all(|count| *count <= most_per_second));
            prop_assert_eq!(share > 0.0, !in_second.is_empty());
        }
    }

    /// Not the first of each second only.
    #[test]
    fn where_there_are_too_many_they_are_spread_over_the_second() {
        let rate = Rate {
            share: 0.5,
            most_per_second: 100,
        };
        let sampler = Sampler::default();
        // 1,000 in a second, of which every other one would be chosen.
        let mut by_tenth = [0; 30];
        for millis in 0..3_000_u64 {
            let chance = if millis.is_multiple_of(2) { 0.1 } else { 0.9 };
            if sampler.choose(rate, Duration::from_millis(millis), chance) {
                by_tenth[millis as usize / 100] += 1;
            }
        }
        assert_eq!(by_tenth[..10].iter().sum::<u32>(), 100, "{by_tenth:?}");
        assert_eq!(by_tenth[10..], [10; 20]);
        // There are fewer again: all of them, but for one second.
        let count = |from: u64| {
            let times = (0..50).map(|number| Duration::from_millis(from + 20 * number));
            times.filter(|now| sampler.choose(rate, *now, 0.1)).count()
        };
        assert_eq!([count(3_000), count(4_000)], [10, 50]);
    }

    #[test]
    fn gaps_come_to_the_share() {
        let rate = Rate {
            share: 0.01,
            most_per_second: 1,
        };
        let gaps = (0..10_000).map(|at| f64::from(rate.gap((f64::from(at) + 0.5) / 10_000.0)));
        let mean = gaps.sum::<f64>() / 10_000.0;
        assert!((mean - 99.0).abs() < 2.0, "{mean}");
    }

    #[test]
    fn a_quiet_destination_is_measured_once_a_second() {
        let rate = Rate {
            share: 0.000_001,
            most_per_second: 100,
        };
        let sampler = Sampler::default();
        let chosen = (0..100_u64)
            .filter(|tenth| sampler.choose(rate, Duration::from_millis(tenth * 100), 0.5))
            .count();
        assert_eq!(chosen, 10);
    }

    #[test]
    fn those_that_somebody_waits_for_are_measured_in_any_case() {
        let off = Rate {
            share: 0.0,
            most_per_second: 1,
        };
        let sampler = Sampler::default();
        sampler.want(3);
        let chosen: Vec<bool> = (0..5)
            .map(|_| {
                let is_chosen = sampler.choose(off, Duration::ZERO, 0.0);
                sampler.served();
                is_chosen
            })
            .collect();
        assert_eq!(chosen, [true, true, true, false, false]);
    }
}
