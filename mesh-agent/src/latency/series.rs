//! How long the stages of the requests of one pod to one server of one destination took.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    book::Outcome,
    stages::{Source, Stage, Unclear},
};

/// Significant digits of a histogram: two of them are off by half a per cent at the most.
const DIGITS: u8 = 2;
/// Shortest time that is told apart, in nanoseconds: shorter differences are the clock's.
pub const SHORTEST: u64 = 512;
/// And the longest.
const LONGEST: u64 = 600_000_000_000;
/// How long the figures of "recently" are kept: from one to two of these.
const RECENT: Duration = Duration::from_secs(30);

/// What there are figures of: the stages, and beside them the whole and the round-trip time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Figure {
    /// A part of a request's time.
    Stage(Stage),
    /// All of a request's time.
    Total,
    /// What the kernel says of the connection to the server (smoothed).
    RoundTrip,
}

impl Figure {
    const COUNT: usize = Stage::ALL.len() + 2;

    const fn index(self) -> usize {
        match self {
            Self::Stage(stage) => stage as usize,
            Self::Total => Stage::ALL.len(),
            Self::RoundTrip => Stage::ALL.len() + 1,
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let stages = Stage::ALL.into_iter().map(Self::Stage);
        stages.chain([Self::Total, Self::RoundTrip])
    }

    /// As it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stage(stage) => stage.name(),
            Self::Total => "total",
            Self::RoundTrip => "roundTrip",
        }
    }
}

/// The figures of some requests.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    histograms: [Option<Histogram<u32>>; Figure::COUNT],
    /// Where the stamps came from that say when requests were handed to the device.
    pub sources: [u64; Source::ALL.len()],
    /// Requests that gave no figures, because their answers began before they had ended.
    pub overlapping: u64,
    /// Requests that gave no figures, because the stamps cannot be.
    pub inconsistent: u64,
    /// Segments to the server that were sent again.
    pub retransmits: u64,
}

impl Figures {
    /// How often and how long, in nanoseconds; `None` if never.
    pub const fn histogram(&self, figure: Figure) -> Option<&Histogram<u32>> {
        self.histograms[figure.index()].as_ref()
    }

    /// Requests that there are figures of.
    pub fn count(&self) -> u64 {
        self.histogram(Figure::Total).map_or(0, Histogram::len)
    }

    fn add_time(&mut self, figure: Figure, nanos: u64) {
        let histogram = self.histograms[figure.index()].get_or_insert_with(empty);
        // It grows to what it is given: that cannot fail.
        let _grown = histogram.record(nanos.clamp(1, LONGEST));
    }

    /// Adds those of others.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            let Some(theirs) = theirs else { continue };
            match mine {
                // Of the same shape, so that there is room for all.
                Some(mine) => {
                    let _grown = mine.add(theirs);
                }
                None => *mine = Some(theirs.clone()),
            }
        }
        for (mine, theirs) in self.sources.iter_mut().zip(other.sources) {
            *mine += theirs;
        }
        self.overlapping += other.overlapping;
        self.inconsistent += other.inconsistent;
        self.retransmits += other.retransmits;
    }
}

/// Grows as longer times come.
fn empty() -> Histogram<u32> {
    let bounded = Histogram::new_with_bounds(SHORTEST, 2 * SHORTEST, DIGITS);
    let mut histogram = bounded.unwrap_or_else(|_| unreachable!("these bounds are good"));
    histogram.auto(true);
    histogram
}

/// The figures of one pod, destination and server.
#[derive(Debug)]
pub struct Series(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    /// Those that are not recent any more.
    older: Figures,
    now: Figures,
    before: Figures,
    begun: Instant,
    was_used: Instant,
}

impl Series {
    /// One of no request.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Kept {
            older: Figures::default(),
            now: Figures::default(),
            before: Figures::default(),
            begun: now,
            was_used: now,
        }))
    }

    /// Adds a request.
    pub fn add(&self, outcome: &Outcome, now: Instant) {
        let mut kept = self.kept();
        kept.was_used = now;
        kept.turn_over(now);
        let figures = &mut kept.now;
        figures.retransmits += u64::from(outcome.resent);
        match &outcome.stages {
            Ok(stages) => {
                for stage in Stage::ALL {
                    figures.add_time(Figure::Stage(stage), stages.get(stage));
                }
                figures.add_time(Figure::Total, stages.total);
                let rtt = outcome.info.rtt;
                if !rtt.is_zero() {
                    figures.add_time(Figure::RoundTrip, rtt.as_nanos() as u64);
                }
                figures.sources[outcome.source as usize] += 1;
            }
            Err(Unclear::Overlapping) => figures.overlapping += 1,
            Err(Unclear::Inconsistent) => figures.inconsistent += 1,
        }
    }

    /// Those since the agent started.
    pub fn since_start(&self) -> Figures {
        let kept = self.kept();
        let mut figures = kept.older.clone();
        figures.add(&kept.before);
        figures.add(&kept.now);
        figures
    }

    /// Those of the last half to whole minute.
    pub fn recent(&self, now: Instant) -> Figures {
        let mut kept = self.kept();
        kept.turn_over(now);
        let mut figures = kept.before.clone();
        figures.add(&kept.now);
        figures
    }

    /// Since when it was not used.
    pub fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.kept().was_used)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn turn_over(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.begun);
        if age < RECENT {
            return;
        }
        self.older.add(&self.before);
        self.before = std::mem::take(&mut self.now);
        if age >= 2 * RECENT {
            self.older.add(&std::mem::take(&mut self.before));
        }
        self.begun = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::{Stages, TcpInfo};

    fn add(series: &Series, nanos: u64, now: Instant) {
        let mut stages = Stages::default();
        stages.total = nanos;
        let outcome = Outcome {
            stages: Ok(stages),
            source: Source::Software,
            info: TcpInfo::default(),
            resent: 0,
        };
        series.add(&outcome, now);
    }

    #[test]
    fn what_is_recent_is_forgotten_and_what_is_since_the_start_is_not() {
        let begun = Instant::now();
        let series = Series::new(begun);
        add(&series, 1_000_000, begun);
        let later = begun + RECENT + RECENT / 2;
        assert_eq!(series.recent(later).count(), 1);
        add(&series, 2_000_000, later);
        assert_eq!(series.recent(later).count(), 2);
        assert_eq!(series.recent(later + RECENT).count(), 1);
        assert_eq!(series.recent(later + 3 * RECENT).count(), 0);
        assert_eq!(series.since_start().count(), 2);
    }

    #[test]
    fn times_are_kept_to_one_per_cent_and_memory_is_bounded() {
        let series = Series::new(Instant::now());
        let times = [0, 700, 90_000, 5_000_000, 2_000_000_000, u64::MAX];
        for nanos in times {
            add(&series, nanos, Instant::now());
        }
        let figures = series.since_start();
        let histogram = figures.histogram(Figure::Total).unwrap();
        assert_eq!(histogram.len(), times.len() as u64);
        let median = histogram.value_at_quantile(0.5) as f64;
        assert!((median / 90_000.0 - 1.0).abs() < 0.01, "{median}");
        let highest = histogram.max();
        assert!(highest >= LONGEST, "{highest}");
        let shortest = histogram.min();
        assert!(shortest < 2 * SHORTEST, "{shortest}");
        let size = histogram.distinct_values() * size_of::<u32>();
        assert!(size < 20_000, "{size} bytes");
    }
}
