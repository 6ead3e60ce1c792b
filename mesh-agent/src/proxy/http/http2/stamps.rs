//! Which stamps of a connection are those of which stream.
//!
//! What is read is stamped as a whole, and so is what is written: a stream's first byte came with the read that had
//! its headers, its last one went with the write that had its end. Only as long as a stream is watched is anything
//! remembered.

#[cfg(test)]
mod tests;
mod watched;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use self::watched::{State, Watched};
use super::frames::{Frames, Seen};
use crate::{
    latency::{self, Arrival, Book, Counts, Heard, Leg, Nanos, Sampler, StampedStream},
    proxy::http::measured::Measured,
};

/// So many requests may come with one read before they are looked at: as long before one is to be measured, what
/// comes in is stamped.
const AHEAD: u32 = 16;

/// The streams of one connection.
#[derive(Debug, Default)]
pub struct StreamStamps {
    leg: Arc<Leg>,
    /// Of a client's connection: says which of its requests may be measured. A server's answers are, if their requests are.
    chooser: Option<Arc<Book>>,
    is_watching: AtomicBool,
    state: Mutex<State>,
}

impl StreamStamps {
    /// Of a client's connection: some of its requests are measured. `sampler` is of where they probably go.
    pub fn of_client(book: Arc<Book>, sampler: &Sampler) -> Self {
        let (is_due, gap) = (book.is_due(sampler, Instant::now()), book.gap());
        let stamps = Self {
            chooser: Some(book),
            ..Self::default()
        };
        let mut state = stamps.state();
        (state.is_due, state.gap) = (is_due, gap);
        stamps.settle(&state);
        drop(state);
        stamps
    }

    /// The connection's packets.
    pub const fn leg(&self) -> &Arc<Leg> {
        &self.leg
    }

    /// If one is due to a destination its next request is to be measured; asked for each request.
    pub fn look(&self, sampler: &Sampler, now: Instant) {
        let Some(book) = &self.chooser else {
            return;
        };
        if book.is_due(sampler, now) {
            let mut state = self.state();
            state.is_due = true;
            self.settle(&state);
        }
    }

    /// From now on what is said on `stream` is remembered: its request is about to be sent, whose whole way is stamped or
    /// not.
    pub fn watch(&self, stream: u32, is_whole: bool) {
        let mut state = self.state();
        state.watch(stream, is_whole);
        self.settle(&state);
    }

    /// Whether the request on `stream` is one that is measured, now that it is known whose `sampler` decides: not before
    /// it was read, as each may go elsewhere.
    pub fn is_for(&self, stream: u32, sampler: &Sampler, now: Instant) -> bool {
        if !self.is_watching.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state();
        let Some(watched) = state.find(stream) else {
            return false;
        };
        let is_chosen = !std::mem::take(&mut watched.is_tentative);
        let permits = |book: &Arc<Book>| {
            let is_due = book.is_due(sampler, now);
            (is_chosen || is_due) && book.takes(sampler, now)
        };
        let is_measured = self.chooser.as_ref().is_some_and(permits);
        if is_measured {
            // Of another destination that is due somebody will say so again.
            state.is_due = false;
        }
        drop(state);
        if !is_measured {
            self.forget(stream);
        }
        is_measured
    }

    /// When what came on `stream` began, and when it ended, if it has.
    pub fn received(&self, stream: u32) -> Option<(Arrival, Option<Arrival>)> {
        let state = self.state();
        let watched = state.watched.iter().find(|it| it.stream == stream)?;
        Some((watched.first()?, watched.last))
    }

    /// What was said before an answer is none of it.
    pub fn forget_interim(&self, stream: u32) {
        if self.is_watching.load(Ordering::Relaxed)
            && let Some(watched) = self.state().find(stream)
        {
            watched.forget_head();
        }
    }

    /// What is known of `stream`.
    pub fn heard(&self, stream: u32) -> Heard {
        let mut state = self.state();
        let Some(watched) = state.find(stream) else {
            return Heard::default();
        };
        let heard = self.leg.heard_until(watched.written);
        Heard {
            first: watched.first(),
            // Without stamps nobody looks for it.
            has_end: watched.end.is_some() || !self.leg.is_prepared(),
            write: heard.write.or(watched.write),
            ..heard
        }
    }

    /// From the last byte that was written on `stream` at the device to the first of what came back.
    pub fn away(&self, stream: u32) -> Option<Duration> {
        let mut state = self.state();
        let watched = state.find(stream)?;
        let write = self.leg.write_until(watched.written?).or(watched.write);
        latency::away(write, watched.first())
    }

    /// What comes on `stream` has ended: when the last of it came, and what became of the connection's stamps since this
    /// was asked last.
    pub fn end_of_answer(&self, stream: u32) -> (Option<Arrival>, Counts) {
        let last = self.received(stream).and_then(|(_, last)| last);
        self.forget(stream);
        (last, self.leg.take_counts())
    }

    /// `stream` is over.
    pub fn forget(&self, stream: u32) {
        let mut state = self.state();
        if state.reset(stream, |_| false) {
            self.gone(&mut state);
        }
    }

    /// Some streams are not watched any more. What was to be written of them may still be, for which nothing is wanted.
    fn gone(&self, state: &mut State) {
        self.look_for_ends(state);
        self.forget_writes(state);
        self.settle(state);
    }

    /// Nothing is asked for any more once no end is to be written.
    fn look_for_ends(&self, state: &mut State) {
        if !state.are_unwritten {
            return;
        }
        let is_unwritten = |it: &Watched| it.end.is_some() && it.written.is_none();
        state.are_unwritten = state.watched.iter().any(is_unwritten);
        if !state.are_unwritten {
            self.leg.ask_nothing();
        }
    }

    /// Only writes that a stream may still be asked for are remembered.
    fn forget_writes(&self, state: &State) {
        let oldest = state.watched.iter().filter_map(|it| it.written).min();
        let end = oldest.map_or_else(|| self.leg.written(), |oldest| oldest - 1);
        self.leg.forget_writes(end);
    }

    /// The end of the answer on `stream` is about to be written.
    pub fn reply(&self, stream: u32, measured: Box<Measured>) {
        if let Some(watched) = self.state().find(stream) {
            watched.reply = Some(measured);
        }
    }

    /// What is said on `stream` had to wait for the peer's window `since` then.
    pub fn held_up(&self, stream: u32, since: Nanos) {
        if !self.is_watching.load(Ordering::Relaxed) {
            return;
        }
        if let Some(watched) = self.state().find(stream) {
            let until = Nanos::now();
            watched.held_up.nanos += until.since(since).max(0).cast_unsigned();
            watched.held_up.until = until;
        }
    }

    /// Bytes were read.
    pub fn read(&self, frames: &mut Frames, bytes: &[u8], stream: &StampedStream) {
        let (is_awaited, is_stamped) = (self.is_awaited(), self.leg.is_receiving());
        if !is_stamped && !is_awaited {
            frames.pass(bytes, |seen| {
                if let (Seen::Headers(stream), Some(_)) = (seen, &self.chooser) {
                    let mut state = self.state();
                    if state.is_turn(stream) {
                        // Nobody knows when it came: the next one.
                        state.gap = 0;
                    }
                    self.settle(&state);
                }
            });
            return;
        }
        // It was read before it was known that somebody waits for it.
        let unstamped = || Some(Arrival::now(None));
        let arrival = is_stamped.then(|| self.leg.last_arrival());
        let Some(arrival) = arrival.unwrap_or_else(unstamped) else {
            return frames.pass(bytes, |_| ());
        };
        let mut state = self.state();
        let (mut is_answer, mut is_gone) = (false, false);
        let mut away = None;
        frames.pass(bytes, |seen| match seen {
            Seen::Headers(stream) => {
                let is_new = stream > state.last_stream;
                if let Some(book) = &self.chooser
                    && state.is_turn(stream)
                {
                    state.gap = book.gap();
                    state.watch(stream, false);
                }
                if (is_awaited || state.is_due) && is_new && state.find(stream).is_none() {
                    state.watch(stream, false).is_tentative = true;
                }
                if let Some(watched) = state.find(stream) {
                    if self.chooser.is_none() && watched.first().is_none() {
                        is_answer = true;
                        away = away.max(latency::away(watched.write, Some(arrival)));
                    }
                    watched.head(arrival);
                }
            }
            Seen::End(stream, _) => {
                if let Some(watched) = state.find(stream) {
                    watched.last = Some(arrival);
                }
            }
            // The client does not want its answer any more. Who has asked a server forgets the stream by itself.
            Seen::Reset(stream) if self.chooser.is_some() => {
                is_gone |= state.reset(stream, |it| it.written.is_some());
            }
            Seen::Reset(stream) => {
                // It may be an answer's end (RFC 9113, 8.1).
                if let Some(watched) = state.find(stream) {
                    watched.last.get_or_insert(arrival);
                }
            }
        });
        if is_gone {
            self.gone(&mut state);
        } else {
            self.settle(&state);
        }
        drop(state);
        if is_answer {
            stream.take_way(away);
        }
    }

    /// Whether any request of a client may be one that is measured.
    fn is_awaited(&self) -> bool {
        let chooser = self.chooser.as_ref();
        chooser.is_some_and(|book| book.is_awaited())
    }

    /// Bytes are about to wait to be written, after so many others that wait.
    pub fn writes(
        &self,
        frames: &mut Frames,
        bytes: &[u8],
        waiting: usize,
        stream: &StampedStream,
    ) {
        if !self.is_watching.load(Ordering::Relaxed) || !stream.prepare() {
            return frames.pass(bytes, |_| ());
        }
        let begin = self.leg.written() + waiting as u64;
        let mut state = self.state();
        let mut is_gone = false;
        frames.pass(bytes, |seen| match seen {
            Seen::End(stream, at) => {
                if let Some(watched) = state.find(stream) {
                    watched.end = Some(begin + at as u64);
                    let is_whole = watched.is_whole;
                    let reply = watched.reply.as_ref();
                    let is_stamped_reply = reply.is_some_and(|reply| reply.is_whole());
                    state.has_ends = true;
                    state.are_unwritten = true;
                    if self.chooser.is_none() {
                        self.leg.ask(is_whole);
                    } else if is_stamped_reply {
                        self.leg.ask_sent();
                    }
                }
            }
            // An answer may end before its request has, which is stopped then (RFC 9113, 8.1).
            Seen::Reset(stream) if self.chooser.is_some() => {
                is_gone |= state.reset(stream, |it| it.end.is_some());
            }
            Seen::Headers(_) | Seen::Reset(_) => {}
        });
        if is_gone {
            self.gone(&mut state);
        }
    }

    /// Something was written: streams that ended with it have their stamps.
    pub fn wrote(&self) {
        if !self.is_watching.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        if !state.are_unwritten {
            return;
        }
        let written = self.leg.written();
        let write = self.leg.write_until(written);
        for watched in &mut state.watched {
            if watched.written.is_none() && watched.end.is_some_and(|end| end <= written) {
                watched.written = Some(written);
                watched.write = write;
            }
        }
        self.look_for_ends(&mut state);
    }

    /// Takes the stamps of answers that were written. `is_over`: the connection has ended, and there is no next look.
    pub fn finish(&self, stream: &StampedStream, is_over: bool) {
        if self.chooser.is_none() || !self.is_watching.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        if !state.has_ends {
            return;
        }
        stream.take_asked();
        let mut replied = Vec::new();
        state.watched.retain_mut(|watched| {
            let Some(end) = watched.written else {
                return true;
            };
            let write = self.leg.write_until(end).or(watched.write);
            // Its stamp comes at once, or with the next look; or never.
            let is_missing = write.is_some_and(|write| write.is_awaited());
            if is_missing && !watched.is_late && !is_over {
                watched.is_late = true;
                return true;
            }
            let held_up = watched.held_up;
            replied.extend(watched.reply.take().map(|reply| (reply, write, held_up)));
            false
        });
        state.has_ends = state.watched.iter().any(|watched| watched.end.is_some());
        self.forget_writes(&state);
        self.settle(&state);
        drop(state);
        for (mut reply, write, held_up) in replied {
            reply.replied(write, held_up);
        }
    }

    /// What comes in is stamped as long as somebody may want that.
    fn settle(&self, state: &State) {
        let is_watching = !state.watched.is_empty();
        self.is_watching.store(is_watching, Ordering::Relaxed);
        let is_near = self.chooser.is_some() && (state.is_due || state.gap <= AHEAD);
        self.leg
            .set_receiving(is_watching || is_near || self.is_awaited());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
