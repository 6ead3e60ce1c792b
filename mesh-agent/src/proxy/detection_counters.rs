//! What was found out about connections whose protocol is detected.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lru::LruCache;
use prometheus_client::metrics::histogram::Histogram;

use crate::policy::detection::Spoken;

/// Names of TLS servers that are remembered; the longest unused is forgotten first.
const MOST_SERVER_NAMES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Upper bounds of how long detection took, in seconds.
const SECONDS: [f64; 6] = [0.000_1, 0.001, 0.005, 0.02, 0.05, 0.1];

/// What was found out, and how long it took.
#[derive(Debug)]
pub struct DetectionCounters {
    told: [AtomicU64; OUTCOMES.len()],
    late: AtomicU64,
    /// From a client's first byte on.
    took: Histogram,
    server_names: Mutex<LruCache<ServerName, u64>>,
}

/// A destination, and the name that TLS clients gave its server.
pub type ServerName = (Arc<str>, Arc<str>);

const OUTCOMES: [&str; 5] = ["http1", "http2", "tls", "tcp", "server_first"];
const SERVER_FIRST: usize = 4;

impl Default for DetectionCounters {
    fn default() -> Self {
        Self {
            told: Default::default(),
            late: AtomicU64::new(0),
            took: Histogram::new(SECONDS),
            server_names: Mutex::new(LruCache::new(MOST_SERVER_NAMES)),
        }
    }
}

impl DetectionCounters {
    /// A client's bytes told, `took` after the first of them.
    pub fn client_told(&self, spoken: Spoken, took: Duration) {
        let outcome = match spoken {
            Spoken::Http1 => 0,
            Spoken::Http2 => 1,
            Spoken::Tls => 2,
            Spoken::Tcp => 3,
        };
        self.told[outcome].fetch_add(1, Ordering::Relaxed);
        self.took.observe(took.as_secs_f64());
    }

    /// The server spoke before its client.
    pub fn server_spoke_first(&self) {
        self.told[SERVER_FIRST].fetch_add(1, Ordering::Relaxed);
    }

    /// The deadline decided.
    pub fn came_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// A TLS connection to `destination` names its server.
    pub fn named(&self, destination: &Arc<str>, server_name: &str) {
        let mut names = self.names();
        *names.get_or_insert_mut((Arc::clone(destination), server_name.into()), || 0) += 1;
    }

    /// How often each outcome came about.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.told.iter().map(|count| count.load(Ordering::Relaxed));
        OUTCOMES.into_iter().zip(counts)
    }

    /// How often the deadline decided.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// How long it took, in seconds from a client's first byte on.
    pub const fn took(&self) -> &Histogram {
        &self.took
    }

    /// TLS connections by destination and server name.
    pub fn server_names(&self) -> Vec<(ServerName, u64)> {
        let names = self.names();
        names
            .iter()
            .map(|(name, count)| (name.clone(), *count))
            .collect()
    }

    fn names(&self) -> std::sync::MutexGuard<'_, LruCache<ServerName, u64>> {
        self.server_names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
