//! What will happen, in the order of time.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A client sends the next request.
    Arrives,
    /// A try has come to its server.
    Reaches(usize),
    /// A server has finished a try, or would have, if it still ran as it did then.
    Finishes {
        /// Which server.
        server: usize,
        /// What it worked on.
        attempt: usize,
        /// How often it had been restarted.
        life: u32,
    },
    /// What waits at a server may have waited long enough.
    Expires(usize),
    /// A try is answered.
    Answers(usize, Answer),
    /// A try has taken too long.
    TimesOut(usize),
    /// A request is tried again.
    Retries(usize),
    /// A request has taken too long with all its tries.
    EndsLate(usize),
}

/// What a caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What it asked for.
    Good,
    /// Nobody listens, or the server broke off.
    Failed,
    /// The server has too much to do.
    Overloaded,
}

/// What will happen, in the order of time.
#[derive(Debug, Default)]
pub struct Events {
    heap: BinaryHeap<Entry>,
    number: u64,
}

#[derive(Debug)]
struct Entry {
    at: Duration,
    number: u64,
    event: Event,
}

impl Events {
    /// This will happen then.
    pub fn add(&mut self, at: Duration, event: Event) {
        self.number += 1;
        self.heap.push(Entry {
            at,
            number: self.number,
            event,
        });
    }

    /// What happens next.
    pub fn next(&mut self) -> Option<(Duration, Event)> {
        let entry = self.heap.pop()?;
        Some((entry.at, entry.event))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}
