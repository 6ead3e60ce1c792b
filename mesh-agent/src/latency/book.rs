//! What is remembered of measured requests: figures by pod, destination and server, and the last requests
//! themselves.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arrayvec::ArrayString;
use http::Method;
use socket2::Socket;

#[cfg(test)]
use super::account::Account;
use super::{
    clock::Nanos,
    clock_steps::ClockSteps,
    counts::{BookCounts, Totals},
    known_series::{KnownSeries, Pair},
    pace::Pace,
    sampler::{Rate, Sampler},
    series::{Figures, Series},
    socket::{self, TcpInfo},
    stages::{Source, Stages, Unclear, Waypoints},
    transmit_log::Counts,
};
use crate::policy::trace_context::Caller;

/// Requests that are remembered one by one.
const MOST_TRACES: usize = 1024;
/// For how long it is remembered that somebody waits for requests.
const AWAITED: Duration = Duration::from_secs(2);
/// Servers to which connections are made for their handshakes only: one to three each, one after the other.
const HANDSHAKES: Pace = Pace {
    every: Duration::from_millis(100),
    at_once: 10,
};

/// The beginning of a path, at most 128 bytes: one that is longer is cut. Not on the heap, where a thousand that are
/// remembered would have every new request write to memory that was not used for long.
#[derive(Clone, Copy, Debug)]
pub struct TracePath(ArrayString<128>);

impl From<&str> for TracePath {
    fn from(path: &str) -> Self {
        let mut begin = ArrayString::new();
        begin.push_str(&path[..path.floor_char_boundary(begin.capacity())]);
        Self(begin)
    }
}

impl fmt::Display for TracePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whose figures they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The pod.
    pub pod: Arc<str>,
    /// Where its requests went, or those from outside to it.
    pub destination: Arc<str>,
    /// The server that answered.
    pub endpoint: SocketAddr,
}

impl Key {
    /// The same of any server.
    pub fn pair(&self) -> Pair {
        (Arc::clone(&self.pod), Arc::clone(&self.destination))
    }
}

/// A request that was measured.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Whose it was.
    pub key: Key,
    /// Its method.
    pub method: Method,
    /// The beginning of its path.
    pub path: TracePath,
    /// Status of its answer.
    pub status: u16,
    /// The trace that it belongs to, if it does to any.
    pub trace: Option<Caller>,
    /// How often it was tried.
    pub tries: u32,
    /// Its stamps.
    pub way: Waypoints,
    /// What came of them.
    pub outcome: Outcome,
}

/// What the stamps of a request say.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Where its time went.
    pub stages: Result<Stages, Unclear>,
    /// Who says when it was handed to the device.
    pub source: Source,
    /// What the kernel said of the connection to the server.
    pub info: TcpInfo,
    /// Segments that had to be sent again for it.
    pub resent: u32,
}

/// What is remembered of measured requests.
#[derive(Debug)]
pub struct Book {
    share: AtomicU64,
    most_per_second: AtomicU32,
    tells_clients: AtomicBool,
    since: Instant,
    clock_steps: ClockSteps,
    /// Until when somebody waits for the next requests to some destination, in milliseconds of its age; or 0.
    awaited: AtomicU64,
    /// When the next server that wants one has its turn for a connection for its handshake only, and when the next may be
    /// made: those who have had theirs come when they have requests.
    next_turn: Mutex<Option<Instant>>,
    next_handshake: Mutex<Option<Instant>>,
    /// Has the kernel stamp what comes in, before there is a connection that asks for it.
    keeper: Mutex<Option<Socket>>,
    series: KnownSeries,
    traces: Mutex<VecDeque<Trace>>,
    totals: Arc<Totals>,
}

impl Default for Book {
    fn default() -> Self {
        let since = Instant::now();
        Self {
            share: AtomicU64::new(0),
            most_per_second: AtomicU32::new(1),
            tells_clients: AtomicBool::new(false),
            since,
            clock_steps: ClockSteps::new(since, Nanos::now()),
            awaited: AtomicU64::new(0),
            next_turn: Mutex::default(),
            next_handshake: Mutex::default(),
            keeper: Mutex::default(),
            series: KnownSeries::default(),
            traces: Mutex::default(),
            totals: Arc::default(),
        }
    }
}

impl Book {
    /// How many requests are measured from now on, and whether their clients are told.
    pub fn apply(&self, rate: Rate, tells_clients: bool) {
        self.share.store(rate.share.to_bits(), Ordering::Relaxed);
        self.most_per_second
            .store(rate.most_per_second, Ordering::Relaxed);
        self.tells_clients.store(tells_clients, Ordering::Relaxed);
        let mut keeper = lock(&self.keeper);
        if rate.share > 0.0 && keeper.is_none() {
            let kept = socket::stamp_what_comes_in();
            *keeper = kept
                .inspect_err(|error| tracing::warn!("latency: no packet timestamps: {error}"))
                .ok();
        } else if rate.share <= 0.0 {
            *keeper = None;
        }
    }

    /// How many are measured.
    pub fn rate(&self) -> Rate {
        Rate {
            share: f64::from_bits(self.share.load(Ordering::Relaxed)),
            most_per_second: self.most_per_second.load(Ordering::Relaxed),
        }
    }

    /// How old it is at a time: what samplers count from.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether the clock that stamps go by was set since `begun`. `now` is what both clocks say.
    pub fn was_clock_set(&self, begun: Instant, now: (Instant, Nanos)) -> bool {
        let again = || (Instant::now(), Nanos::now());
        self.clock_steps.are_any(begun, now, again)
    }

    /// Whether a request is measured whose destination has this sampler.
    pub fn chooses(&self, sampler: &Sampler, now: Instant) -> bool {
        sampler.choose(self.rate(), self.age(now), rand::random())
    }

    /// How many requests pass until the next that chance chooses.
    pub fn gap(&self) -> u32 {
        self.rate().gap(rand::random())
    }

    /// See [`Sampler::is_due`].
    pub fn is_due(&self, sampler: &Sampler, now: Instant) -> bool {
        sampler.is_due(self.rate(), self.age(now))
    }

    /// See [`Sampler::takes`].
    pub fn takes(&self, sampler: &Sampler, now: Instant) -> bool {
        sampler.takes(self.rate(), self.age(now))
    }

    /// Somebody waits for the next requests to some destination; to be said again each second.
    pub fn is_waited_for(&self) {
        let until = (self.age(Instant::now()) + AWAITED).as_millis() as u64;
        self.awaited.fetch_max(until, Ordering::Relaxed);
    }

    /// Whether somebody does, so that any request may be one that is measured.
    pub fn is_awaited(&self) -> bool {
        let until = self.awaited.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let is_awaited = self.age(Instant::now()).as_millis() < u128::from(until);
        if !is_awaited {
            // No more looks at the clock, unless somebody has come meanwhile.
            let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
            let _newer = self.awaited.compare_exchange(until, 0, set, get);
        }
        is_awaited
    }

    /// At which age it is the turn of who wants a connection for its handshake only from `now` on: not too many in a second,
    /// however many servers there are.
    pub fn handshake_turn(&self, now: Instant) -> Duration {
        self.age(HANDSHAKES.reserve(&mut lock(&self.next_turn), now))
    }

    /// Whether one may be made `now` by who has had its turn, which this takes.
    pub fn may_shake_hands(&self, now: Instant) -> bool {
        HANDSHAKES.take(&mut lock(&self.next_handshake), now)
    }

    /// Whether answers say where their time went.
    pub fn tells_clients(&self) -> bool {
        self.tells_clients.load(Ordering::Relaxed)
    }

    /// What became of stamps of no series.
    pub fn count(&self, stamps: Counts) {
        self.totals.add(BookCounts {
            stamps,
            ..BookCounts::default()
        });
    }

    /// A measured request has ended that is remembered by itself, too.
    #[cfg(test)]
    pub fn add_and_remember(self: &Arc<Self>, trace: Trace) {
        let (key, now) = (&trace.key, Instant::now());
        Account::of(self, &key.pod, &key.destination, key.endpoint, now).add(trace.outcome, now);
        self.remember(trace);
    }

    /// One that is remembered by itself has ended.
    pub fn remember(&self, trace: Trace) {
        let mut traces = lock(&self.traces);
        if traces.len() == MOST_TRACES {
            traces.pop_front();
        }
        traces.push_back(trace);
    }

    pub(super) fn series_of(&self, key: &Key, now: Instant) -> Arc<Series> {
        self.series.of(key, now, &self.totals)
    }

    /// All series, by pod, destination and server.
    pub fn series(&self) -> Vec<(Key, Arc<Series>)> {
        self.series.all()
    }

    /// What was measured since the agent started, by pod and destination: of each as long as any server is known.
    pub fn since_start(&self) -> BTreeMap<Pair, Figures> {
        self.series.since_start()
    }

    /// The last requests that `is_wanted`, the newest first.
    pub fn traces(&self, most: usize, is_wanted: impl Fn(&Trace) -> bool) -> Vec<Trace> {
        let traces = lock(&self.traces);
        let wanted = traces.iter().rev().filter(|trace| is_wanted(trace));
        wanted.take(most).cloned().collect()
    }

    /// What became of stamps and requests.
    pub fn counts(&self) -> BookCounts {
        for (_, series) in self.series() {
            series.settle();
        }
        self.totals.get()
    }

    /// Forgets series without requests.
    pub fn sweep(&self, now: Instant) {
        self.series.sweep(now);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(destination: &str, endpoint: u16) -> Trace {
        Trace {
            key: Key {
                pod: "client".into(),
                destination: destination.into(),
                endpoint: SocketAddr::from(([10, 0, 0, 1], endpoint)),
            },
            method: Method::GET,
            path: "/".into(),
            status: 200,
            trace: None,
            tries: 1,
            way: Waypoints::default(),
            outcome: Outcome {
                stages: Ok(Stages::default()),
                source: Source::Software,
                info: TcpInfo::default(),
                resent: 0,
            },
        }
    }

    #[test]
    fn there_are_never_more_requests_than_are_remembered() {
        let book = Arc::<Book>::default();
        for _ in 0..2 * MOST_TRACES {
            book.add_and_remember(trace("one", 80));
        }
        assert_eq!(book.traces(usize::MAX, |_| true).len(), MOST_TRACES);
    }

    #[test]
    fn nobody_is_waited_for_for_good() {
        let book = Book {
            since: Instant::now().checked_sub(3 * AWAITED).unwrap(),
            ..Book::default()
        };
        assert!(!book.is_awaited());
        book.is_waited_for();
        assert!(book.is_awaited());
        // As if that had been said some time ago.
        book.awaited.store(1, Ordering::Relaxed);
        assert!(!book.is_awaited());
        assert_eq!(
            book.awaited.load(Ordering::Relaxed),
            0,
            "each look is one at the clock"
        );
        book.is_waited_for();
        assert!(book.is_awaited());
    }

    #[test]
    fn the_newest_requests_come_first() {
        let book = Arc::<Book>::default();
        for endpoint in [1, 2, 3] {
            book.add_and_remember(trace("one", endpoint));
        }
        book.add_and_remember(trace("two", 9));
        let traces = book.traces(2, |trace| &*trace.key.destination == "one");
        let ports: Vec<u16> = traces.iter().map(|it| it.key.endpoint.port()).collect();
        assert_eq!(ports, [3, 2]);
    }
}
