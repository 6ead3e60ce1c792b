//! The streams of a connection whose packets are looked at, and what is known of each.

use crate::{latency::Arrival, proxy::http::measured::Measured};

/// Streams that are watched at once.
pub(super) const MOST: usize = 256;
/// Headers of one stream that are remembered: of two that precede an answer, and the answer's.
const MOST_HEADS: usize = 3;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) watched: Vec<Watched>,
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
    /// Only if it turns out to be for a destination whose requests somebody waits for.
    pub(super) is_tentative: bool,
    /// Its first headers, and those after them: more than one is told of may come before the first of them is known to
    /// be none of the answer.
    heads: [Option<Arrival>; MOST_HEADS],
    pub(super) last: Option<Arrival>,
    /// Where its end is in what is written.
    pub(super) end: Option<u64>,
    /// Where the write ends that it went with.
    pub(super) written: Option<u64>,
    /// Its stamp was looked for once.
    pub(super) is_late: bool,
    /// A request whose answer is being written.
    pub(super) reply: Option<Box<Measured>>,
    /// Stamps of its whole way are wanted.
    pub(super) is_whole: bool,
}

impl Watched {
    const fn new(stream: u32, is_whole: bool) -> Self {
        Self {
            stream,
            is_tentative: false,
            heads: [None; MOST_HEADS],
            last: None,
            end: None,
            written: None,
            is_late: false,
            reply: None,
            is_whole,
        }
    }

    /// When its first byte came.
    pub(super) const fn first(&self) -> Option<Arrival> {
        self.heads[0]
    }

    /// Headers came.
    pub(super) fn head(&mut self, arrival: Arrival) {
        if let Some(free) = self.heads.iter_mut().find(|it| it.is_none()) {
            *free = Some(arrival);
        }
    }

    /// Its first headers are none of it: it begins with those after them.
    pub(super) fn forget_head(&mut self) {
        self.heads.rotate_left(1);
        self.heads[MOST_HEADS - 1] = None;
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
