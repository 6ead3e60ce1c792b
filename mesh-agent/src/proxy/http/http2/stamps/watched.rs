//! The streams of a connection whose packets are looked at, and what is known of each.

use crate::{
    latency::{Arrival, Nanos, Write},
    proxy::http::measured::{HeldUp, Measured},
};

/// Streams that are watched at once.
pub(super) const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) watched: Vec<Watched>,
    /// One is due to some destination: the next request may be to that.
    pub(super) is_due: bool,
    /// Requests that pass until the next that is measured.
    pub(super) gap: u32,
    /// The last stream that began.
    pub(super) last_stream: u32,
    /// An end is to be written, or was and waits for its stamp.
    pub(super) has_ends: bool,
    /// An end is to be written.
    pub(super) are_unwritten: bool,
}

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) stream: u32,
    /// Only if it turns out to be for a destination whose requests somebody waits for, or to which one is due.
    pub(super) is_tentative: bool,
    /// Its headers. More may come before the first of them is known to be none of the answer: so many that came before the
    /// last two are none of it, because after its own come trailers at the most.
    interim: u32,
    heads: [Option<Arrival>; 2],
    pub(super) last: Option<Arrival>,
    /// Where its end is in what is written.
    pub(super) end: Option<u64>,
    /// Where the write ends that it went with.
    pub(super) written: Option<u64>,
    /// What was known of that then: others may push it out of what the connection remembers.
    pub(super) write: Option<Write>,
    /// Its stamp was looked for once.
    pub(super) is_late: bool,
    /// A request whose answer is being written.
    pub(super) reply: Option<Box<Measured>>,
    /// Stamps of its whole way are wanted.
    pub(super) is_whole: bool,
    /// By the peer's window.
    pub(super) held_up: HeldUp,
}

impl Watched {
    const fn new(stream: u32, is_whole: bool) -> Self {
        Self {
            stream,
            is_tentative: false,
            interim: 0,
            heads: [None; 2],
            last: None,
            end: None,
            written: None,
            write: None,
            is_late: false,
            reply: None,
            is_whole,
            held_up: HeldUp {
                nanos: 0,
                until: Nanos(0),
            },
        }
    }

    /// When its first byte came.
    pub(super) const fn first(&self) -> Option<Arrival> {
        self.heads[0]
    }

    /// Headers came.
    pub(super) const fn head(&mut self, arrival: Arrival) {
        match self.heads {
            [None, _] => self.heads[0] = Some(arrival),
            [_, None] => self.heads[1] = Some(arrival),
            [_, last] => {
                self.heads = [last, Some(arrival)];
                self.interim = self.interim.saturating_add(1);
            }
        }
    }

    /// Its first headers are none of it: it begins with those after them.
    pub(super) const fn forget_head(&mut self) {
        if self.interim > 0 {
            self.interim -= 1;
        } else {
            self.heads = [self.heads[1], None];
        }
    }
}

impl State {
    /// The one that was watched first makes room: of those that nothing comes of any more.
    pub(super) fn watch(&mut self, stream: u32, is_whole: bool) -> &mut Watched {
        if self.watched.len() == MOST {
            self.watched.remove(0);
        }
        self.watched.push_mut(Watched::new(stream, is_whole))
    }

    /// `stream` was reset: what was to be said on it never will be. Whether that was more than `is_said`.
    pub(super) fn reset(&mut self, stream: u32, is_said: impl Fn(&Watched) -> bool) -> bool {
        let at = self.watched.iter().position(|it| it.stream == stream);
        let Some(at) = at.filter(|at| !is_said(&self.watched[*at])) else {
            return false;
        };
        self.watched.remove(at);
        true
    }

    pub(super) fn find(&mut self, stream: u32) -> Option<&mut Watched> {
        self.watched.iter_mut().find(|it| it.stream == stream)
    }

    /// Headers came on `stream`: whether they are those of a request whose turn it is.
    pub(super) const fn is_turn(&mut self, stream: u32) -> bool {
        if stream <= self.last_stream {
            return false;
        }
        self.last_stream = stream;
        if self.gap == 0 {
            return true;
        }
        if self.gap < u32::MAX {
            self.gap -= 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_much_is_said_before_it_an_answer_begins_with_its_own_head() {
        let at = |stamp| {
            let mut arrival = Arrival::default();
            arrival.read.0 = stamp;
            arrival
        };
        for interim in 0..9 {
            for trailers in [false, true] {
                let mut watched = Watched::new(1, true);
                for stamp in 0..=interim + u64::from(trailers) {
                    watched.head(at(stamp));
                }
                for _ in 0..interim {
                    watched.forget_head();
                }
                assert_eq!(watched.first(), Some(at(interim)), "after {interim}");
            }
        }
    }
}
