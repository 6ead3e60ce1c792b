//! The figures by pod, destination and server, and those of servers that are forgotten.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    book::Key,
    counts::Totals,
    series::{Figures, Series},
};

/// Most series: with those of other requests, all that come later are counted together.
pub(super) const MOST: usize = 256;
/// The destination of those others.
pub(super) const OTHERS: &str = "others";
/// After so long without a request a series is forgotten.
pub(super) const IDLE: Duration = Duration::from_mins(15);

/// Of which pod and destination.
pub type Pair = (Arc<str>, Arc<str>);

/// All that there are.
#[derive(Debug, Default)]
pub(super) struct KnownSeries(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    series: HashMap<Key, Arc<Series>>,
    /// What was measured of servers that are forgotten, as long as their pod and destination have others: counts must not
    /// go back, which a monitoring system would take for a new beginning.
    forgotten: BTreeMap<Pair, Arc<Figures>>,
}

impl KnownSeries {
    /// That of `key`, or of all others if there are too many. What becomes of its stamps is counted in `totals`.
    pub(super) fn of(&self, key: &Key, now: Instant, totals: &Arc<Totals>) -> Arc<Series> {
        let all = &mut self.state().series;
        if let Some(series) = all.get(key) {
            return Arc::clone(series);
        }
        let key = if all.len() < MOST {
            key.clone()
        } else {
            let destination = OTHERS.into();
            let endpoint = SocketAddr::from(([0, 0, 0, 0], 0));
            Key {
                pod: Arc::clone(&key.pod),
                destination,
                endpoint,
            }
        };
        let series = all.entry(key);
        let new = || Arc::new(Series::new(now, Arc::clone(totals)));
        Arc::clone(series.or_insert_with(new))
    }

    /// All of them, by pod, destination and server.
    pub(super) fn all(&self) -> Vec<(Key, Arc<Series>)> {
        let mut all = self.state().list();
        all.sort_by(|(one, _), (other, _)| {
            (&one.pod, &one.destination, one.endpoint).cmp(&(
                &other.pod,
                &other.destination,
                other.endpoint,
            ))
        });
        all
    }

    /// What was measured since the agent started, by pod and destination: of each as long as any server is known.
    pub(super) fn since_start(&self) -> BTreeMap<Pair, Figures> {
        loop {
            let state = self.state();
            let (all, forgotten) = (state.list(), state.forgotten.clone());
            drop(state);
            let mut pairs: BTreeMap<Pair, Figures> = BTreeMap::new();
            for (pair, figures) in forgotten {
                pairs.insert(pair, Figures::clone(&figures));
            }
            for (key, series) in &all {
                pairs
                    .entry(key.pair())
                    .or_default()
                    .add(&series.since_start());
            }
            // Its figures may have gone to the forgotten ones meanwhile.
            if !all.iter().any(|(_, series)| series.is_forgotten()) {
                return pairs;
            }
        }
    }

    /// Forgets those that were not used for long.
    pub(super) fn sweep(&self, now: Instant) {
        let State { series, forgotten } = &mut *self.state();
        series.retain(|key, series| {
            let Some(figures) = series.forget_after(IDLE, now) else {
                return true;
            };
            Arc::make_mut(forgotten.entry(key.pair()).or_default()).add(&figures);
            false
        });
        forgotten.retain(|pair, _| series.keys().any(|key| key.pair() == *pair));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn list(&self) -> Vec<(Key, Arc<Series>)> {
        let all = self.series.iter();
        all.map(|(key, series)| (key.clone(), Arc::clone(series)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::latency::{Account, Book, Outcome, Source, Stages, TcpInfo};

    fn measured(book: &Arc<Book>, destination: &str, port: u16, now: Instant) {
        let outcome = Outcome {
            stages: Ok(Stages::default()),
            source: Source::Software,
            info: TcpInfo::default(),
            resent: 1,
        };
        let (pod, destination) = ("client".into(), destination.into());
        let endpoint = SocketAddr::from(([10, 0, 0, 1], port));
        Account::of(book, &pod, &destination, endpoint, now).add(outcome, now);
    }

    fn count(book: &Book, destination: &str) -> Option<(u64, u64)> {
        let all = book.since_start();
        let figures = all.get(&("client".into(), destination.into()))?;
        Some((figures.count(), figures.retransmits))
    }

    #[test]
    fn there_are_never_more_than_are_remembered() {
        let book = Arc::<Book>::default();
        for number in 0..3_000_u32 {
            measured(&book, &number.to_string(), 80, Instant::now());
        }
        assert_eq!(book.series().len(), MOST + 1);
        let others = 3_000 - MOST as u64;
        assert_eq!(count(&book, OTHERS), Some((others, others)));
    }

    #[test]
    fn counts_do_not_go_back_when_one_of_several_servers_is_forgotten() {
        let book = Arc::<Book>::default();
        let begun = Instant::now();
        measured(&book, "web", 1, begun);
        measured(&book, "web", 2, begun);
        measured(&book, "other", 3, begun);
        let later = begun + IDLE / 2;
        measured(&book, "web", 2, later);
        book.sweep(begun + IDLE);
        assert_eq!(book.series().len(), 1, "one server is still used");
        assert_eq!(count(&book, "web"), Some((3, 3)));
        assert_eq!(count(&book, "other"), None);

        // The forgotten one comes back, and goes again.
        measured(&book, "web", 1, later);
        assert_eq!(count(&book, "web"), Some((4, 4)));
        measured(&book, "web", 2, begun + 2 * IDLE);
        book.sweep(begun + 2 * IDLE);
        assert_eq!(count(&book, "web"), Some((5, 5)));

        book.sweep(begun + 4 * IDLE);
        assert_eq!((book.series().len(), count(&book, "web")), (0, None));
        measured(&book, "web", 2, begun + 4 * IDLE);
        assert_eq!(count(&book, "web"), Some((1, 1)), "begun anew");
    }

    #[test]
    fn nobody_sees_less_while_a_server_is_forgotten() {
        let book = Arc::<Book>::default();
        let begun = Instant::now();
        let kept = begun + IDLE;
        measured(&book, "web", 0, kept);
        let book = &book;
        let looks = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let looks = &looks;
            let seen = scope.spawn(move || {
                let mut most = 0;
                while most < 500 {
                    let (now, _) = count(book, "web").unwrap_or_default();
                    assert!(now >= most, "{most}, then {now}");
                    most = now;
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            for number in 1..500 {
                measured(book, "web", number, begun);
                book.sweep(kept);
                // Somebody looks between each two, too.
                let before = looks.load(Ordering::Relaxed);
                while number < 499 && looks.load(Ordering::Relaxed) == before {
                    std::thread::yield_now();
                }
            }
            seen.join().unwrap();
        });
    }
}
