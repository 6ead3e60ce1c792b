//! What is known of the load of one endpoint.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How fast old response times are forgotten: as in Finagle and Linkerd.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint is taken to need before its first answer.
const INITIAL: Duration = Duration::from_millis(30);
/// A failure counts as an answer that took so long (Linkerd), so that failing fast attracts nothing.
const FAILURE: Duration = Duration::from_secs(5);

/// Requests under way and the peak-sensitive moving average of response times.
///
/// Answers that come at the same moment may overwrite each other's: the average is a hint, and not
/// worth a lock.
#[derive(Debug)]
pub struct EndpointLoad {
    pending: AtomicU32,
    /// Seconds, as bits of an f64.
    average: AtomicU64,
    /// Of the average, in nanoseconds since `origin`.
    last: AtomicU64,
    origin: Instant,
}

impl EndpointLoad {
    /// Of an endpoint that has answered nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            pending: AtomicU32::new(0),
            average: AtomicU64::new(INITIAL.as_secs_f64().to_bits()),
            last: AtomicU64::new(0),
            origin: now,
        }
    }

    /// A request goes there.
    pub fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is over.
    pub fn end(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests under way.
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// An answer began after `took`.
    pub fn answered(&self, took: Duration, now: Instant) {
        let (average, kept) = self.average_and_kept(now);
        let took = took.as_secs_f64();
        let average = if took > average {
            // A peak counts at once, and is forgotten slowly.
            took
        } else {
            average * kept + took * (1.0 - kept)
        };
        self.average.store(average.to_bits(), Ordering::Relaxed);
        let now = now.saturating_duration_since(self.origin).as_nanos();
        self.last.store(now as u64, Ordering::Relaxed);
    }

    /// A request was given up after `took`: its answer would have taken longer.
    pub fn took_longer_than(&self, took: Duration, now: Instant) {
        if took.as_secs_f64() > self.average_and_kept(now).0 {
            self.answered(took, now);
        }
    }

    /// A request failed.
    pub fn failed(&self, now: Instant) {
        self.answered(FAILURE, now);
    }

    /// What one more request would cost there: peak EWMA. An endpoint that nobody asks gets cheaper
    /// with time, and so is tried again.
    pub fn cost(&self, now: Instant) -> f64 {
        let (average, kept) = self.average_and_kept(now);
        average * kept * (f64::from(self.pending()) + 1.0)
    }

    /// The average in seconds, and what share of it still counts.
    fn average_and_kept(&self, now: Instant) -> (f64, f64) {
        let average = f64::from_bits(self.average.load(Ordering::Relaxed));
        let last = Duration::from_nanos(self.last.load(Ordering::Relaxed));
        let passed = now
            .saturating_duration_since(self.origin)
            .saturating_sub(last);
        (average, (-passed.as_secs_f64() / DECAY.as_secs_f64()).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let mut now = Instant::now();
        let load = EndpointLoad::new(now);
        load.answered(Duration::from_secs(1), now);
        assert!((load.cost(now) - 1.0).abs() < 1e-9);
        now += DECAY;
        assert!((load.cost(now) - (-1.0_f64).exp()).abs() < 1e-9);
        load.answered(Duration::ZERO, now);
        assert!((load.cost(now) - (-1.0_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn cost_grows_with_what_is_under_way() {
        let now = Instant::now();
        let load = EndpointLoad::new(now);
        let idle = load.cost(now);
        load.begin();
        load.begin();
        assert!((load.cost(now) - 3.0 * idle).abs() < 1e-9);
        load.end();
        assert_eq!(load.pending(), 1);
    }
}
