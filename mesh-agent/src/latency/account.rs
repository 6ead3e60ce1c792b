//! What one thread adds to the figures of one pod, destination and server: some requests at a time. If each went to the
//! figures at once, all threads would wait for one another's caches for every request.

use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    book::{Book, Key, Outcome},
    counts::BookCounts,
    series::Series,
    transmit_log::Counts,
};

/// So many requests wait here before they are added.
const MOST_WAITING: usize = 16;
/// And so long at most, if more come; all that wait together are taken for as old as the first.
const LONGEST: Duration = Duration::from_secs(1);
/// Accounts that a thread has at hand, a power of 2. Another one of the same place takes the place.
const AT_HAND: usize = 64;

thread_local! {
    static ACCOUNTS: RefCell<[Option<Arc<Account>>; AT_HAND]> = const {
        RefCell::new([const { None }; AT_HAND])
    };
}

/// What one thread adds to one series.
#[derive(Debug)]
pub struct Account {
    book: Arc<Book>,
    key: Key,
    series: Arc<Series>,
    waiting: Mutex<Waiting>,
}

/// What has not been added yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) counts: BookCounts,
    /// When the first of the outcomes came.
    pub(super) since: Option<Instant>,
}

impl Account {
    /// This thread's for these requests.
    pub fn of(
        book: &Arc<Book>,
        pod: &Arc<str>,
        destination: &Arc<str>,
        endpoint: SocketAddr,
        now: Instant,
    ) -> Arc<Self> {
        ACCOUNTS.with_borrow_mut(|accounts| {
            let place = &mut accounts[place(destination, endpoint)];
            if let Some(account) = place
                && account.is_of(book, pod, destination, endpoint)
            {
                return Arc::clone(account);
            }
            let key = Key {
                pod: Arc::clone(pod),
                destination: Arc::clone(destination),
                endpoint,
            };
            let account = Arc::new(Self {
                series: book.series_of(&key, now),
                book: Arc::clone(book),
                key,
                waiting: Mutex::default(),
            });
            account.series.open(&account);
            Arc::clone(place.insert(account))
        })
    }

    /// Names are at the same place, as a rule: when the configuration was read again they are elsewhere.
    fn is_of(
        &self,
        book: &Arc<Book>,
        pod: &Arc<str>,
        destination: &Arc<str>,
        endpoint: SocketAddr,
    ) -> bool {
        let is_same = |one: &Arc<str>, other: &Arc<str>| Arc::ptr_eq(one, other) || one == other;
        self.key.endpoint == endpoint
            && is_same(&self.key.destination, destination)
            && is_same(&self.key.pod, pod)
            && Arc::ptr_eq(&self.book, book)
            && !self.series.is_forgotten()
    }

    /// What it is added to in the end.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Whose requests they are.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// A request is measured from now on.
    pub fn begun(&self) {
        self.change(|counts| counts.measured += 1);
    }

    /// Its answer never ended.
    pub fn never_ended(&self) {
        self.change(|counts| counts.unfinished += 1);
    }

    /// What became of stamps.
    pub fn count(&self, stamps: Counts) {
        self.change(|counts| counts.stamps += stamps);
    }

    fn change(&self, change: impl FnOnce(&mut BookCounts)) {
        change(&mut self.waiting().counts);
        if self.series.is_forgotten() {
            // Nobody looks for it there.
            self.series.add(self);
        }
    }

    /// A measured request has ended.
    pub fn add(&self, outcome: Outcome, now: Instant) {
        if self.series.is_forgotten() {
            // It took so long.
            let Key {
                pod,
                destination,
                endpoint,
            } = &self.key;
            let account = Self::of(&self.book, pod, destination, *endpoint, now);
            return account.put(outcome, now);
        }
        self.put(outcome, now);
    }

    fn put(&self, outcome: Outcome, now: Instant) {
        let mut waiting = self.waiting();
        let is_old = |since| now.saturating_duration_since(since) >= LONGEST;
        if waiting.outcomes.len() >= MOST_WAITING || waiting.since.is_some_and(is_old) {
            drop(waiting);
            self.series.add(self);
            waiting = self.waiting();
        }
        waiting.since.get_or_insert(now);
        waiting.outcomes.push(outcome);
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.series.add(self);
    }
}

/// Where a thread has the account of such requests.
fn place(destination: &Arc<str>, endpoint: SocketAddr) -> usize {
    let address = match endpoint {
        SocketAddr::V4(address) => address.ip().to_bits(),
        SocketAddr::V6(address) => address.ip().to_bits() as u32,
    };
    let name = destination.as_ptr() as usize as u32 >> 4;
    let mixed = (name ^ address.rotate_left(16) ^ u32::from(endpoint.port()))
        // 2^32 divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
        .wrapping_mul(0x9e37_79b9);
    (mixed >> (u32::BITS - AT_HAND.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
        thread,
    };

    use hdrhistogram::Histogram;

    use super::*;
    use crate::latency::{
        series::Figure,
        socket::TcpInfo,
        stages::{Source, Stages},
    };

    const THREADS: u64 = 4;
    const REQUESTS: u64 = 1_003;

    fn outcome() -> Outcome {
        Outcome {
            stages: Ok(Stages::default()),
            source: Source::Software,
            info: TcpInfo::default(),
            resent: 0,
        }
    }

    fn add(book: &Arc<Book>, name: &Arc<str>, port: u16, now: Instant) {
        let endpoint = SocketAddr::from(([10, 0, 0, 1], port));
        let account = Account::of(book, name, name, endpoint, now);
        account.begun();
        account.add(outcome(), now);
        account.count(Counts {
            matched: 2,
            ..Counts::default()
        });
    }

    fn in_all_series(book: &Book) -> u64 {
        let series = book.series();
        let figures = series.iter().map(|(_, series)| series.since_start());
        let total = figures.filter_map(|it| it.histogram(Figure::Total).map(Histogram::len));
        total.sum()
    }

    /// More servers than a thread has accounts at hand, too.
    #[test]
    fn nothing_is_lost_between_threads_whoever_looks_meanwhile() {
        let book = Arc::<Book>::default();
        let name: Arc<str> = "web".into();
        let now = Instant::now();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (book, name) = (&book, &name);
                scope.spawn(move || {
                    for number in 0..REQUESTS {
                        add(book, name, (number % (thread * 60 + 1)) as u16, now);
                        if number % 100 == 0 {
                            let _looked = (book.counts(), in_all_series(book));
                        }
                    }
                });
            }
        });
        let counts = book.counts();
        assert_eq!(counts.measured, THREADS * REQUESTS);
        assert_eq!(counts.stamps.matched, 2 * THREADS * REQUESTS);
        assert_eq!(in_all_series(&book), THREADS * REQUESTS);
    }

    #[test]
    fn what_is_added_after_a_series_was_forgotten_is_in_another() {
        let book = Arc::<Book>::default();
        let name: Arc<str> = "web".into();
        let now = Instant::now();
        add(&book, &name, 80, now);
        book.sweep(now + Duration::from_hours(1));
        assert_eq!(book.series().len(), 0);
        add(&book, &name, 80, now);
        assert_eq!(in_all_series(&book), 1);
        assert_eq!(book.counts().measured, 2);
    }

    /// A stream of events, say, that was all there was for long.
    #[test]
    fn a_request_that_outlives_its_series_is_in_another() {
        let book = Arc::<Book>::default();
        let name: Arc<str> = "web".into();
        let begin = Instant::now();
        let end = begin + Duration::from_hours(1);
        let endpoint = SocketAddr::from(([10, 0, 0, 1], 80));
        let account = Account::of(&book, &name, &name, endpoint, begin);
        account.begun();
        book.sweep(end);
        account.add(outcome(), end);
        account.never_ended();
        assert_eq!(in_all_series(&book), 1);
        assert_eq!((book.counts().measured, book.counts().unfinished), (1, 1));
    }

    /// A pod's name is at another place after the configuration was read again.
    #[test]
    fn old_and_new_connections_share_an_account() {
        let book = Arc::<Book>::default();
        let endpoint = SocketAddr::from(([10, 0, 0, 1], 80));
        let name: Arc<str> = "web".into();
        let of = |pod: Arc<str>| Account::of(&book, &pod, &name, endpoint, Instant::now());
        let before = of("client".into());
        assert!(Arc::ptr_eq(&before, &of("client".into())));
        assert!(!Arc::ptr_eq(&before, &of("other".into())));
    }

    #[test]
    fn many_accounts_of_one_series_are_added_while_others_go_on() {
        let book = Arc::<Book>::default();
        let name: Arc<str> = "web".into();
        let now = Instant::now();
        // All that come later are one series.
        for port in 0..300 {
            add(&book, &name, port, now);
        }
        let is_over = AtomicBool::new(false);
        let added = AtomicU64::new(300);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut port = 1_000;
                    while !is_over.load(Ordering::Relaxed) {
                        port = 1_000 + (port + 1) % 60;
                        add(&book, &name, port, Instant::now());
                        added.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_micros(10));
                    }
                });
            }
            for _ in 0..500 {
                let _looked = book.counts();
                thread::sleep(Duration::from_millis(1));
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let added = added.into_inner();
        assert_eq!(
            (book.counts().measured, in_all_series(&book)),
            (added, added)
        );
    }
}
