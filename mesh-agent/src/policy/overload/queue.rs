//! Requests that wait until the server can take them: controlled delay and adaptive LIFO as in "Fail at
//! Scale", ACM Queue 13(8), 2015.
//!
//! A queue that is empty now and then only evens out bursts: each may wait for its turn. One that is not
//! has more to do than it can. If all waited then, all would be served too late; so only those stay that
//! just came, and the newest is the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::policy::priority::Priority;

/// How long requests may wait, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// For so long, if the queue was empty within the last so long. Also what makes it overloaded: not to
    /// have been empty for so long. The paper has 100 ms.
    pub max_wait: Duration,
    /// For so long while it is overloaded, if less than `max_wait`. The paper has 5 ms. When fewer requests
    /// are served than one in that time, the server may have to wait for the next one to come.
    pub min_wait: Duration,
    /// So many at once. With 0 none waits.
    pub size: u32,
    /// Which is the next.
    pub lifo: Lifo,
}

/// Which of those that wait is the next. Critical ones are before all others in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifo {
    /// The newest while the queue is overloaded, otherwise the oldest.
    Adaptive,
    /// The oldest.
    Never,
    /// The newest.
    Always,
}

/// Requests that wait. The limits are passed to each call, so that they may change.
///
/// The wait bound that counts is the one that holds now, not the one when a request came (as in the paper's
/// code): the delay is short again as soon as the queue is overloaded. Each call is O(log n) for each
/// request that it adds or takes out.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    critical: BTreeMap<Ticket, Waiting<T>>,
    ordinary: BTreeMap<Ticket, Waiting<T>>,
    /// The ordinary ones again, the last to be evicted first.
    by_importance: BTreeSet<(u16, Ticket)>,
    /// When it was empty the last time, unless it is now.
    not_empty_since: Option<Instant>,
    next: Ticket,
}

/// Names one of those that wait. The later it came the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

#[derive(Clone, Debug)]
struct Waiting<T> {
    item: T,
    priority: Priority,
    since: Instant,
}

/// What became of a request that was to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    /// It waits.
    Waits(Ticket),
    /// It waits, and this other one no longer does: it was less important, or its time was up.
    Replaced {
        /// Of the new one.
        ticket: Ticket,
        /// The other one, to be refused.
        evicted: T,
    },
    /// It is to be refused: there is no room for it.
    Full(T),
}

/// What [`Queue::pop`] takes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Popped<T> {
    /// The next to serve.
    pub served: Option<Served<T>>,
    /// Those whose time is up, the oldest first, with how long they waited: to be refused.
    pub expired: Vec<Served<T>>,
}

/// One that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<T> {
    /// What was pushed.
    pub item: T,
    /// For how long it was in the queue.
    pub waited: Duration,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            critical: BTreeMap::new(),
            ordinary: BTreeMap::new(),
            by_importance: BTreeSet::new(),
            not_empty_since: None,
            next: Ticket::default(),
        }
    }
}

impl<T> Queue<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.critical.len() + self.ordinary.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has not been empty for `max_wait`.
    pub fn is_overloaded(&self, limits: &QueueLimits, now: Instant) -> bool {
        self.not_empty_since
            .is_some_and(|since| now.saturating_duration_since(since) >= limits.max_wait)
    }

    /// Lets one wait. In a full queue it takes the place of one whose time is up, or of the least important
    /// one if that is less important than itself; of several such of the newest, which has waited in vain
    /// for the shortest time. A critical one is more important than any that is not, and never gives way
    /// before its time is up.
    pub fn push(
        &mut self,
        item: T,
        priority: Priority,
        is_critical: bool,
        limits: &QueueLimits,
        now: Instant,
    ) -> Pushed<T> {
        let mut evicted = None;
        if self.len() >= limits.size as usize {
            let victim = self.victim(priority, is_critical, limits, now);
            let Some(victim) = victim.filter(|_| limits.size > 0) else {
                return Pushed::Full(item);
            };
            evicted = self.take(victim);
        }
        // Also after an eviction: a queue with room for one only is not empty between the two.
        if evicted.is_none() && self.is_empty() {
            self.not_empty_since = Some(now);
        }
        let ticket = self.next;
        self.next = Ticket(ticket.0 + 1);
        let waiting = Waiting {
            item,
            priority,
            since: now,
        };
        if is_critical {
            self.critical.insert(ticket, waiting);
        } else {
            self.ordinary.insert(ticket, waiting);
            self.by_importance.insert((priority.ordinal(), ticket));
        }
        match evicted {
            Some(waiting) => Pushed::Replaced {
                ticket,
                evicted: waiting.item,
            },
            None => Pushed::Waits(ticket),
        }
    }

    /// Takes out the next to serve, and those whose time is up.
    pub fn pop(&mut self, limits: &QueueLimits, now: Instant) -> Popped<T> {
        let expired = self.expire(limits, now);
        let is_newest_first = match limits.lifo {
            Lifo::Adaptive => self.is_overloaded(limits, now),
            Lifo::Never => false,
            Lifo::Always => true,
        };
        let next = [&self.critical, &self.ordinary].into_iter().find_map(|it| {
            let mut tickets = it.keys();
            if is_newest_first {
                tickets.next_back().copied()
            } else {
                tickets.next().copied()
            }
        });
        let served = next.and_then(|ticket| self.remove_waiting(ticket));
        Popped {
            served: served.map(|it| it.served(now)),
            expired,
        }
    }

    /// Takes out those whose time is up, the oldest first: all critical ones, then the others.
    pub fn expire(&mut self, limits: &QueueLimits, now: Instant) -> Vec<Served<T>> {
        let mut expired = Vec::new();
        while let Some(ticket) = self.late(limits, now) {
            expired.extend(self.remove_waiting(ticket).map(|it| it.served(now)));
        }
        expired
    }

    /// When the next one's time is up, if nothing changes until then.
    pub fn next_expiry(&self, limits: &QueueLimits) -> Option<Instant> {
        let critical = self.critical.values().next();
        let ordinary = self.ordinary.values().next();
        let critical = critical.and_then(|it| self.expiry(it, true, limits));
        let ordinary = ordinary.and_then(|it| self.expiry(it, false, limits));
        critical.into_iter().chain(ordinary).min()
    }

    /// Takes one out, because nobody waits for its answer any more. None if it is not there.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.remove_waiting(ticket).map(|it| it.item)
    }

    fn remove_waiting(&mut self, ticket: Ticket) -> Option<Waiting<T>> {
        let removed = self.take(ticket);
        if self.is_empty() {
            self.not_empty_since = None;
        }
        removed
    }

    fn take(&mut self, ticket: Ticket) -> Option<Waiting<T>> {
        if let Some(waiting) = self.ordinary.remove(&ticket) {
            self.by_importance
                .remove(&(waiting.priority.ordinal(), ticket));
            return Some(waiting);
        }
        self.critical.remove(&ticket)
    }

    /// Which one gives way to a new one.
    fn victim(
        &self,
        priority: Priority,
        is_critical: bool,
        limits: &QueueLimits,
        now: Instant,
    ) -> Option<Ticket> {
        self.late(limits, now).or_else(|| {
            let (ordinal, ticket) = self.by_importance.last().copied()?;
            (is_critical || priority.ordinal() < ordinal).then_some(ticket)
        })
    }

    /// One whose time is up. In each line those do not outlast younger ones.
    fn late(&self, limits: &QueueLimits, now: Instant) -> Option<Ticket> {
        let is_late = |waiting, is_critical| {
            let expiry = self.expiry(waiting, is_critical, limits);
            expiry.is_some_and(|expiry| expiry <= now)
        };
        let critical = self.critical.iter().next();
        let critical = critical.filter(|(_, waiting)| is_late(waiting, true));
        let ordinary = self.ordinary.iter().next();
        let ordinary = ordinary.filter(|(_, waiting)| is_late(waiting, false));
        critical.or(ordinary).map(|(ticket, _)| *ticket)
    }

    /// When its time is up. A critical one may wait for `max_wait`; another one too, but once the queue is
    /// overloaded only for `min_wait`.
    fn expiry(
        &self,
        waiting: &Waiting<T>,
        is_critical: bool,
        limits: &QueueLimits,
    ) -> Option<Instant> {
        let latest = waiting.since.checked_add(limits.max_wait);
        if is_critical {
            return latest;
        }
        let overloaded = self.not_empty_since?.checked_add(limits.max_wait)?;
        let earliest = waiting.since.checked_add(limits.min_wait)?;
        Some(latest?.min(earliest.max(overloaded)))
    }
}

impl<T> Waiting<T> {
    fn served(self, now: Instant) -> Served<T> {
        Served {
            item: self.item,
            waited: now.saturating_duration_since(self.since),
        }
    }
}
