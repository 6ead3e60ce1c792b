//! The connection to a server, or the stream on it, whose packets are stamped for one try.

use std::{sync::Arc, time::Duration};

use super::http2::StreamStamps;
use crate::latency::{Arrival, Counts, Heard, Leg, Message};

/// What can be heard of one try.
#[derive(Clone, Debug)]
pub enum Hearing {
    /// On a connection of its own: which message there; and whether it is the first.
    Connection(Arc<Leg>, Message, bool),
    /// On a stream.
    Stream(Arc<StreamStamps>, u32),
}

impl Hearing {
    /// What was heard.
    pub fn heard(&self) -> Heard {
        match self {
            Self::Connection(leg, message, _) => leg.heard(*message),
            Self::Stream(stamps, stream) => stamps.heard(*stream),
        }
    }

    /// From the request's last byte at the device to the answer's first.
    pub fn away(&self) -> Option<Duration> {
        match self {
            Self::Connection(leg, message, _) => leg.away(*message),
            Self::Stream(stamps, stream) => stamps.away(*stream),
        }
    }

    /// The answer has ended and nothing more is to be heard: when its last byte came, and what became of the
    /// connection's stamps since this was asked last.
    pub fn end_of_answer(&self) -> (Option<Arrival>, Counts) {
        match self {
            Self::Connection(leg, message, _) => leg.end_of_answer(*message),
            Self::Stream(stamps, stream) => stamps.end_of_answer(*stream),
        }
    }

    /// Whether it is the first on its connection.
    pub const fn is_new(&self) -> bool {
        matches!(self, Self::Connection(_, _, true))
    }

    /// Nothing more is to be heard.
    pub fn end(&self) {
        match self {
            Self::Connection(leg, message, _) => leg.end(*message),
            Self::Stream(stamps, stream) => stamps.forget(*stream),
        }
    }
}

/// Whether the packets of a try are stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measuring {
    /// They are not.
    No,
    /// The request is stamped when it is handed to the device.
    Sent,
    /// All its way is stamped.
    WholeWay,
}

impl Measuring {
    /// Whether they are.
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::No)
    }

    /// Whether all of the way is.
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::WholeWay)
    }
}
