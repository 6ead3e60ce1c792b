//! Keeps one cause from filling the log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const INTERVAL: Duration = Duration::from_secs(10);

/// Says yes at most every 10 s.
#[derive(Debug, Default)]
pub struct Occasionally(Mutex<Option<Instant>>);

impl Occasionally {
    /// One that says yes the first time.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether it is time again.
    pub fn now(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}
