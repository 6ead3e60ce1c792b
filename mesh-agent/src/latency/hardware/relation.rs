//! How a card's clock relates to the system's: arithmetic only, over readings of both.
//!
//! Two readings give the card's rate against the system's; a stamp is put on the line through them. What
//! the line may be wrong by is kept with every result: half of the time that each reading took, and what
//! the rate may have changed since. Where nothing is known there is no result, never a guess.

#[cfg(test)]
mod tests;

use crate::latency::{HardwareNanos, Nanos};

const BILLION: i128 = 1_000_000_000;
/// Two clocks that were read together once may part this fast, in parts of 10^9: as fast as the kernel
/// slews the system's clock at the most (`MAXFREQ` of include/linux/timex.h).
const UNKNOWN_RATE: i128 = 500_000;
/// How much a rate that was measured may change until the next reading: what crystals do in a second of
/// changing temperature, and a disciplined clock's own corrections, with room.
const STEADY: i128 = 5_000;
/// Faster than this no two clocks part: one was set.
const STEP: i128 = 1_000_000;
/// Readings farther apart than this do not tell the rate.
const LONGEST: i128 = 60 * BILLION;
/// A reading that took longer, nanoseconds, says nothing.
const WIDEST: u64 = 1_000_000_000;
/// What a reading is good for, nanoseconds before and after it.
pub const STALE: u64 = 5_000_000_000;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What the card's clock showed.
    pub hardware: HardwareNanos,
    /// The middle of the time in which it was read.
    pub system: Nanos,
    /// How long that time was, nanoseconds: the card's clock was read somewhere inside.
    pub window: u64,
}

impl Reading {
    /// How far the card's clock is ahead.
    fn offset(&self) -> i128 {
        i128::from(self.hardware.0) - i128::from(self.system.0)
    }

    fn half_window(&self) -> i128 {
        i128::from(self.window.div_ceil(2))
    }

    fn at(&self) -> i128 {
        self.hardware.0.into()
    }
}

/// A card's stamp by the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// When it was.
    pub time: Nanos,
    /// By how much it may be wrong, nanoseconds in each direction.
    pub uncertainty: u64,
}

impl Converted {
    /// What several clocks make of a stamp of which it is not known whose it is: `None` unless they agree,
    /// each within what it may be wrong by.
    pub fn agreed(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        let span = |one: Self| {
            let (from, to) = (
                one.time.0.checked_sub(one.uncertainty)?,
                one.time.0.checked_add(one.uncertainty)?,
            );
            Some((from, to))
        };
        let (mut earliest, mut latest) = (u64::MAX, 0);
        let (mut last_begin, mut first_end) = (0, u64::MAX);
        for one in all {
            let (from, to) = span(one)?;
            (earliest, latest) = (earliest.min(from), latest.max(to));
            (last_begin, first_end) = (last_begin.max(from), first_end.min(to));
        }
        let width = latest.checked_sub(earliest)?;
        (last_begin <= first_end).then_some(Self {
            time: Nanos(earliest + width / 2),
            uncertainty: width.div_ceil(2),
        })
    }
}

/// How a card's clock relates to the system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockRelation {
    latest: Option<Reading>,
    previous: Option<Reading>,
    /// By how much more than the readings explain the rate changed lately, in parts of 10^9.
    wander: i128,
}

impl ClockRelation {
    /// Takes a new reading in.
    pub fn observe(&mut self, reading: Reading) {
        if reading.window > WIDEST {
            return;
        }
        if let Some(latest) = self.latest {
            let step = stepped(&latest, &reading);
            self.wander = match self.previous {
                Some(previous) if !step => {
                    (self.wander / 2).max(rate_change(&previous, &latest, &reading))
                }
                _ => 0,
            };
            self.previous = (!step).then_some(latest);
        }
        self.latest = Some(reading);
    }

    /// Forgets everything: the clock cannot be read any more.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// A stamp of the card by the system's clock. `None` without a reading, when the readings are too far
    /// from the stamp, and for one of before the first reading: a clock may have been set in between.
    pub fn to_system(&self, stamp: HardwareNanos) -> Option<Converted> {
        let latest = self.latest.as_ref()?;
        let at = i128::from(stamp.0);
        let after = at - latest.at();
        if after > STALE.into() {
            return None;
        }
        let Some(previous) = &self.previous else {
            if after < 0 {
                return None;
            }
            let uncertainty = latest.half_window() + parts(after, UNKNOWN_RATE);
            return convert(at, latest.offset(), uncertainty);
        };
        let (span, since) = (latest.at() - previous.at(), at - previous.at());
        if since < -i128::from(STALE) {
            return None;
        }
        let drift = latest.offset() - previous.offset();
        let offset = previous.offset() + drift * since / span;
        let halves = previous.half_window() + latest.half_window();
        // How far outside the two readings, what the line's ends say there, and how far from the nearest.
        let (outside, end, from_nearest) = if after > 0 {
            (after, latest.half_window(), after)
        } else if since < 0 {
            (-since, previous.half_window(), -since)
        } else {
            let wider = previous.half_window().max(latest.half_window());
            (0, wider, since.min(-after))
        };
        let leaning = halves * outside / span;
        let changing = parts(from_nearest, STEADY + 2 * self.wander);
        convert(at, offset, end + leaning + changing)
    }
}

/// That many parts of 10^9 of `time`.
const fn parts(time: i128, of_billion: i128) -> i128 {
    time * of_billion / BILLION
}

fn convert(at: i128, offset: i128, uncertainty: i128) -> Option<Converted> {
    /// The divisions above round towards zero.
    const ROUNDING: i128 = 4;
    Some(Converted {
        time: Nanos(u64::try_from(at - offset).ok()?),
        uncertainty: u64::try_from(uncertainty + ROUNDING).ok()?,
    })
}

/// Whether one of the clocks was set between two readings, or too long ago to tell.
fn stepped(earlier: &Reading, later: &Reading) -> bool {
    let passed = later.at() - earlier.at();
    let system = i128::from(later.system.0) - i128::from(earlier.system.0);
    let explained = earlier.half_window() + later.half_window() + parts(passed, STEP);
    passed <= 0 || passed > LONGEST || system <= 0 || (passed - system).abs() > explained
}

/// How much faster or slower than the line through the first two the clocks parted until the third,
/// beyond what the readings' windows explain, in parts of 10^9.
fn rate_change(first: &Reading, second: &Reading, third: &Reading) -> i128 {
    let (span, since) = (second.at() - first.at(), third.at() - second.at());
    let expected = second.offset() + (second.offset() - first.offset()) * since / span;
    let leaning = (first.half_window() + second.half_window()) * since / span;
    let explained = second.half_window() + third.half_window() + leaning;
    let unexplained = (third.offset() - expected).abs() - explained;
    unexplained.max(0) * BILLION / since
}
