//! How long answers took, in little memory and without a lock.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Each power of two is cut into so many: what is told is at most a sixteenth too long.
const PARTS: usize = 16;
const PARTS_BITS: u32 = PARTS.ilog2();
/// Up to some 19 hours, in microseconds; what is longer counts as that.
const POWERS: usize = 36;
const BUCKETS: usize = (POWERS - PARTS_BITS as usize + 1) * PARTS;

/// How often answers took how long: 2 KiB. After four billion of one length it begins anew with these.
#[derive(Debug)]
pub struct ResponseHistogram(Box<[AtomicU32; BUCKETS]>);

impl Default for ResponseHistogram {
    fn default() -> Self {
        Self(Box::new([const { AtomicU32::new(0) }; BUCKETS]))
    }
}

impl ResponseHistogram {
    /// What it takes.
    pub const BYTES: usize = size_of::<[AtomicU32; BUCKETS]>();

    /// An answer took so long.
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[index(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .map(|it| u64::from(it.load(Ordering::Relaxed)))
            .sum()
    }

    /// What this share of them took at most; `None` of none.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let counts = self
            .0
            .iter()
            .map(|it| u64::from(it.load(Ordering::Relaxed)));
        let index = counts.enumerate().find_map(|(index, count)| {
            seen += count;
            (seen >= wanted).then_some(index)
        });
        index.map(|index| Duration::from_micros(most(index)))
    }
}

fn index(micros: u64) -> usize {
    if micros < PARTS as u64 {
        return micros as usize;
    }
    let power = micros.ilog2();
    let part = (micros >> (power - PARTS_BITS)) as usize - PARTS;
    let index = (power - PARTS_BITS + 1) as usize * PARTS + part;
    index.min(BUCKETS - 1)
}

/// The longest time that is counted there, in microseconds.
const fn most(index: usize) -> u64 {
    if index < PARTS {
        return index as u64;
    }
    let power = index / PARTS - 1;
    let next = (index % PARTS + PARTS + 1) as u64;
    (next << power) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_time_has_its_place() {
        const { assert!(ResponseHistogram::BYTES <= 2304) }
        let mut before = 0;
        for micros in 0..1_000_000 {
            let index = index(micros);
            assert!(index == before || index == before + 1, "{micros}");
            assert!(micros <= most(index), "{micros}");
            assert!(
                most(index) as f64 <= micros as f64 * (1.0 + 1.0 / PARTS as f64),
                "{micros}"
            );
            before = index;
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
        assert_eq!(ResponseHistogram::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_times(
            mut micros in prop::collection::vec(0..100_000_000_u64, 1..300),
            share in 0.0..=1.0_f64,
        ) {
            let histogram = ResponseHistogram::default();
            for micros in &micros {
                histogram.add(Duration::from_micros(*micros));
            }
            micros.sort_unstable();
            let place = ((micros.len() as f64 * share).ceil() as usize).max(1) - 1;
            let exact = micros[place] as f64;
            let told = histogram.quantile(share).unwrap().as_micros() as f64;
            prop_assert!(told >= exact && told <= exact * 1.0625, "{told} for {exact}");
            prop_assert_eq!(histogram.count(), micros.len() as u64);
        }
    }
}
