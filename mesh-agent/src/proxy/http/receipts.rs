//! When the requests of an HTTP/1 client came, and when their answers went out: which stamps of its
//! connection are whose.
//!
//! Requests are numbered in the order in which they pass the framing, and answered in that order, so that
//! pipelined ones keep apart. Only as long as one is to be measured is anything remembered.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::measured::{HeldUp, Measured};
use crate::latency::{Arrival, Book, Leg, Nanos, StampedStream};

/// Requests that are remembered before they are looked at: a client that pipelines more than that is
/// measured less.
const MOST: usize = 64;

/// The requests of one client connection.
#[derive(Debug, Default)]
pub struct Receipts {
    leg: Arc<Leg>,
    book: Arc<Book>,
    /// The next request is to be measured.
    is_wanted: AtomicBool,
    /// Requests that were begun with.
    begun: AtomicU64,
    /// When an answer was written last, while that matters; in nanoseconds.
    answered: AtomicU64,
    has_reply: AtomicBool,
    /// And it is written.
    is_written: AtomicBool,
    /// There are requests that can be measured.
    is_any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    receipts: VecDeque<Receipt>,
    /// When the first byte came of a request whose head is not whole yet.
    first: Option<Arrival>,
    /// Its answer is being written.
    reply: Option<Box<Measured>>,
}

/// When a request came.
#[derive(Clone, Copy, Debug)]
struct Receipt {
    number: u64,
    first: Arrival,
    /// Its last byte, once that has come.
    last: Option<Arrival>,
}

/// What a read has done to the framing.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// Heads that had passed before, and have now.
    pub before: u64,
    /// See `before`.
    pub after: u64,
    /// Whether the last of them goes on.
    pub goes_on: bool,
    /// Whether the beginning of another was held back before.
    pub held_before: bool,
    /// Whether one is now.
    pub holds: bool,
}

impl Receipts {
    /// Of a new connection, whose measured requests are for `book`.
    pub fn new(book: Arc<Book>) -> Self {
        Self {
            book,
            ..Self::default()
        }
    }

    /// The client's connection.
    pub const fn leg(&self) -> &Arc<Leg> {
        &self.leg
    }

    /// The next request is to be measured, or not.
    pub fn want(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, Ordering::Relaxed);
        if is_wanted {
            self.leg.set_receiving(true);
        } else if self.leg.is_receiving() {
            self.settle(&self.state());
        }
    }

    /// Something may come in now. If somebody waits for requests it may be one of those, which is not known before it has
    /// come.
    pub fn look_ahead(&self) {
        if self.book.is_awaited() {
            self.leg.set_receiving(true);
        }
    }

    /// Bytes were read with stamps, and passed.
    pub fn read(&self, passed: Passed) {
        let Some(arrival) = self.leg.last_arrival() else {
            return;
        };
        let mut state = self.state();
        let Passed { before, after, .. } = passed;
        if let Some(last) = state.receipts.back_mut()
            && last.number == before
            && last.last.is_none()
            && (after > before || !passed.goes_on)
        {
            last.last = Some(arrival);
        }
        for number in before + 1..=after {
            let first = state.first.take();
            let is_unknown = first.is_none() && passed.held_before && number == before + 1;
            if is_unknown {
                continue;
            }
            if state.receipts.len() == MOST {
                state.receipts.pop_front();
            }
            let goes_on = number == after && passed.goes_on;
            state.receipts.push_back(Receipt {
                number,
                first: first.unwrap_or(arrival),
                last: (!goes_on).then_some(arrival),
            });
            self.is_any.store(true, Ordering::Relaxed);
        }
        if passed.holds && (after > before || !passed.held_before) {
            state.first.get_or_insert(arrival);
        }
        self.settle(&state);
    }

    /// Stamps that nobody wants are not asked for.
    fn settle(&self, state: &State) {
        let is_coming = state.first.is_some();
        let is_coming = is_coming || state.receipts.back().is_some_and(|it| it.last.is_none());
        if !is_coming && !self.is_wanted.load(Ordering::Relaxed) {
            self.leg.set_receiving(false);
        }
    }

    /// The next request is begun with: its number, if it can be measured, and when the answer before it was
    /// written, if it had to wait for that. `is_awaited`: somebody waits for requests such as this.
    pub fn begin(&self, is_awaited: bool) -> Option<(u64, Option<Nanos>)> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let is_wanted = is_awaited || self.is_wanted.load(Ordering::Relaxed);
        if !self.is_any.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        while state.receipts.front().is_some_and(|it| it.number < number) {
            state.receipts.pop_front();
        }
        self.is_any
            .store(!state.receipts.is_empty(), Ordering::Relaxed);
        // Others may have come with one that was to be measured.
        let first = state.receipts.front();
        let first = first.filter(|it| it.number == number && is_wanted)?;
        let answered = self.answered.load(Ordering::Relaxed);
        let turn = (answered > first.first.stamp.at.0).then_some(Nanos(answered));
        Some((number, turn))
    }

    /// When the first byte of a request came, and the last, if that has come.
    pub fn look(&self, number: u64) -> Option<(Arrival, Option<Arrival>)> {
        let state = self.state();
        let receipt = state.receipts.front().filter(|it| it.number == number)?;
        Some((receipt.first, receipt.last))
    }

    /// What is written from now on ends the answer to a request.
    pub fn reply(&self, number: u64, measured: Box<Measured>) {
        let is_whole = measured.is_whole();
        let mut state = self.state();
        state.receipts.pop_front_if(|it| it.number == number);
        state.reply = Some(measured);
        drop(state);
        self.is_written.store(false, Ordering::Relaxed);
        self.has_reply.store(true, Ordering::Relaxed);
        if is_whole {
            self.leg.begin_write();
            self.leg.ask_sent();
        }
    }

    /// All that there is of answers has been written to `stream`, of `heads` requests so far. `speaks`: the client had
    /// begun with another before that.
    pub fn flushed(&self, stream: &StampedStream, heads: u64, speaks: bool) {
        let waits = speaks || heads > self.begun.load(Ordering::Relaxed);
        if waits && self.leg.is_receiving() {
            self.answered.store(Nanos::now().0, Ordering::Relaxed);
        }
        if self.has_reply.load(Ordering::Relaxed) {
            self.is_written.store(true, Ordering::Relaxed);
            self.leg.ask_nothing();
            self.finish(stream, false);
        }
    }

    /// Takes the stamp of an answer that was written before, which has come or never will.
    pub fn finish_late(&self, stream: &StampedStream) {
        if self.has_reply.load(Ordering::Relaxed) && self.is_written.load(Ordering::Relaxed) {
            self.finish(stream, true);
        }
    }

    /// All of the last answer was written before its end came, which was that of the server's connection.
    pub fn finish_without_write(&self) {
        if !self.has_reply.swap(false, Ordering::Relaxed) {
            return;
        }
        let reply = self.state().reply.take();
        if let Some(mut reply) = reply {
            reply.was_replied();
        }
    }

    fn finish(&self, stream: &StampedStream, is_late: bool) {
        let mut state = self.state();
        let is_stamped = state.reply.as_ref().is_some_and(|reply| reply.is_whole());
        let write = is_stamped.then(|| {
            stream.take_asked();
            self.leg.last_write()
        });
        let write = write.flatten();
        if !is_late && write.is_some_and(|write| write.is_awaited()) {
            return;
        }
        self.has_reply.store(false, Ordering::Relaxed);
        let reply = state.reply.take();
        drop(state);
        if let Some(mut reply) = reply {
            reply.replied(write, HeldUp::default());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
