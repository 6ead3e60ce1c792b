//! How long the stages of the requests of one pod to one server of one destination took.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    account::Account,
    book::Outcome,
    counts::Totals,
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
    /// Looks at connections that carry no requests.
    pub connections: u64,
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

    fn add_times(&mut self, figure: Figure, all: impl Iterator<Item = u64>) {
        let mut all = all.peekable();
        if all.peek().is_none() {
            return;
        }
        let histogram = self.histograms[figure.index()].get_or_insert_with(empty);
        // Many stages take no time at all.
        let mut zeros = 0;
        for nanos in all {
            if nanos == 0 {
                zeros += 1;
            } else {
                // It grows to what it is given: that cannot fail.
                let _grown = histogram.record(nanos.min(LONGEST));
            }
        }
        if zeros > 0 {
            let _grown = histogram.record_n(1, zeros);
        }
    }

    fn add_all(&mut self, outcomes: &[Outcome]) {
        let clear = || outcomes.iter().filter_map(|it| it.stages.as_ref().ok());
        for stage in Stage::ALL {
            self.add_times(Figure::Stage(stage), clear().map(|it| it.get(stage)));
        }
        self.add_times(Figure::Total, clear().map(|it| it.total));
        let of_tcp = outcomes.iter().filter(|it| {
            let stages = &it.stages;
            stages.is_ok() || matches!(stages, Err(Unclear::NoRequest))
        });
        let round_trips = of_tcp.map(|it| it.info.rtt.as_nanos() as u64);
        self.add_times(Figure::RoundTrip, round_trips.filter(|nanos| *nanos > 0));
        for outcome in outcomes {
            self.retransmits += u64::from(outcome.resent);
            match outcome.stages {
                Ok(_) => self.sources[outcome.source as usize] += 1,
                Err(Unclear::Overlapping) => self.overlapping += 1,
                Err(Unclear::Inconsistent) => self.inconsistent += 1,
                Err(Unclear::NoRequest) => self.connections += 1,
            }
        }
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
        self.connections += other.connections;
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
pub struct Series {
    kept: Mutex<Kept>,
    totals: Arc<Totals>,
    /// What is added from now on is lost: it is to be looked for again.
    is_forgotten: AtomicBool,
}

#[derive(Debug)]
struct Kept {
    /// Those that are not recent any more.
    older: Figures,
    now: Figures,
    before: Figures,
    begun: Instant,
    was_used: Instant,
    /// Where more waits to be added.
    accounts: Vec<Weak<Account>>,
}

impl Series {
    /// One of no request. What becomes of stamps and requests is counted in `totals`.
    pub(super) fn new(now: Instant, totals: Arc<Totals>) -> Self {
        Self {
            kept: Mutex::new(Kept {
                older: Figures::default(),
                now: Figures::default(),
                before: Figures::default(),
                begun: now,
                was_used: now,
                accounts: Vec::new(),
            }),
            totals,
            is_forgotten: AtomicBool::new(false),
        }
    }

    /// `account` is for it.
    pub(super) fn open(&self, account: &Arc<Account>) {
        let mut kept = self.kept();
        // Before it would take more room, so that each is looked at twice at most.
        if kept.accounts.len() == kept.accounts.capacity() {
            kept.accounts.retain(|account| account.strong_count() > 0);
        }
        kept.accounts.push(Arc::downgrade(account));
    }

    /// Adds what waits in `account`.
    pub(super) fn add(&self, account: &Account) {
        let is_due = |kept: &Kept| account.waiting().since.is_some_and(|at| kept.is_due(at));
        let mut kept = self.kept();
        if is_due(&kept) {
            // What waits elsewhere may be older.
            drop(kept);
            self.settle();
            kept = self.kept();
        }
        kept.take(account, &self.totals);
    }

    /// Adds what waits anywhere.
    pub(super) fn settle(&self) {
        self.with_all(|_| ());
    }

    /// Those since the agent started.
    pub fn since_start(&self) -> Figures {
        self.with_all(|kept| {
            let mut figures = kept.older.clone();
            figures.add(&kept.before);
            figures.add(&kept.now);
            figures
        })
    }

    /// Those of the last half to whole minute.
    pub fn recent(&self, now: Instant) -> Figures {
        self.with_all(|kept| {
            kept.turn_over(now);
            let mut figures = kept.before.clone();
            figures.add(&kept.now);
            figures
        })
    }

    /// If it was not used for so long by `now` it is forgotten: then these are its figures.
    pub(super) fn forget_after(&self, idle: Duration, now: Instant) -> Option<Figures> {
        self.with_all(|kept| {
            if now.saturating_duration_since(kept.was_used) < idle {
                return None;
            }
            self.is_forgotten.store(true, Ordering::Relaxed);
            // Threads may have their accounts at hand for long.
            let mut figures = std::mem::take(&mut kept.older);
            figures.add(&std::mem::take(&mut kept.before));
            figures.add(&std::mem::take(&mut kept.now));
            Some(figures)
        })
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.is_forgotten.load(Ordering::Relaxed)
    }

    /// With what waits anywhere.
    fn with_all<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        // Whoever drops the last of an account adds what is left in it, which is not possible before this is unlocked.
        let mut accounts: Vec<Arc<Account>> = Vec::new();
        let mut kept = self.kept();
        accounts.extend(kept.accounts.iter().filter_map(Weak::upgrade));
        // Other threads add to them meanwhile: each is looked at once.
        accounts.sort_by_cached_key(|account| account.waiting().since);
        for account in &accounts {
            kept.take(account, &self.totals);
        }
        let seen = look(&mut kept);
        drop(kept);
        drop(accounts);
        seen
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn take(&mut self, account: &Account, totals: &Totals) {
        let mut waiting = account.waiting();
        totals.add(std::mem::take(&mut waiting.counts));
        if let Some(since) = waiting.since.take() {
            self.turn_over(since);
            self.was_used = self.was_used.max(since);
            self.now.add_all(&waiting.outcomes);
            waiting.outcomes.clear();
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begun) >= RECENT
    }

    fn turn_over(&mut self, now: Instant) {
        if !self.is_due(now) {
            return;
        }
        let age = now.saturating_duration_since(self.begun);
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
    use std::net::SocketAddr;

    use super::*;
    use crate::latency::{Book, Stages, TcpInfo};

    struct Adding {
        account: Arc<Account>,
        series: Arc<Series>,
    }

    impl Adding {
        fn new(now: Instant) -> Self {
            let book = Arc::<Book>::default();
            let name: Arc<str> = "one".into();
            let endpoint = SocketAddr::from(([10, 0, 0, 1], 80));
            let account = Account::of(&book, &name, &name, endpoint, now);
            let series = Arc::clone(&book.series()[0].1);
            Self { account, series }
        }

        fn add(&self, nanos: u64, now: Instant) {
            let mut stages = Stages::default();
            stages.total = nanos;
            let outcome = Outcome {
                stages: Ok(stages),
                source: Source::Software,
                info: TcpInfo::default(),
                resent: 0,
            };
            self.account.add(outcome, now);
        }
    }

    #[test]
    fn what_is_recent_is_forgotten_and_what_is_since_the_start_is_not() {
        let begun = Instant::now();
        let adding = Adding::new(begun);
        let series = &adding.series;
        adding.add(1_000_000, begun);
        let later = begun + RECENT + RECENT / 2;
        assert_eq!(series.recent(later).count(), 1);
        adding.add(2_000_000, later);
        assert_eq!(series.recent(later).count(), 2);
        assert_eq!(series.recent(later + RECENT).count(), 1);
        assert_eq!(series.recent(later + 3 * RECENT).count(), 0);
        assert_eq!(series.since_start().count(), 2);
    }

    #[test]
    fn what_waits_is_of_the_time_when_it_came() {
        let begun = Instant::now();
        let adding = Adding::new(begun);
        let series = &adding.series;
        adding.add(1_000_000, begun);
        // Nobody looks for long, and then come as many as are added at once.
        let later = begun + 3 * RECENT;
        for _ in 0..100 {
            adding.add(2_000_000, later);
        }
        let recent = series.recent(later + RECENT / 2);
        assert_eq!(recent.count(), 100);
        assert_eq!(series.recent(later + RECENT).count(), recent.count());
        assert_eq!(series.since_start().count(), 101);
    }

    #[test]
    fn times_are_kept_to_one_per_cent_and_memory_is_bounded() {
        let adding = Adding::new(Instant::now());
        let times = [0, 700, 90_000, 5_000_000, 2_000_000_000, u64::MAX];
        for nanos in times {
            adding.add(nanos, Instant::now());
        }
        let figures = adding.series.since_start();
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
