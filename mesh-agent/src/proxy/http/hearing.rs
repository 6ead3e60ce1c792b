//! The connection to a server, or the stream on it, whose packets are stamped for one try.

use std::sync::Arc;

use super::http2::StreamStamps;
use crate::latency::{Heard, Leg};

/// What can be heard of one try.
#[derive(Clone, Debug)]
pub enum Hearing {
    /// On a connection of its own; whether it is the first there.
    Connection(Arc<Leg>, bool),
    /// On a stream.
    Stream(Arc<StreamStamps>, u32),
}

impl Hearing {
    /// What was heard.
    pub fn heard(&self) -> Heard {
        match self {
            Self::Connection(leg, _) => leg.heard(),
            Self::Stream(stamps, stream) => stamps.heard(*stream),
        }
    }

    /// The connection's packets.
    pub fn leg(&self) -> &Leg {
        match self {
            Self::Connection(leg, _) => leg,
            Self::Stream(stamps, _) => stamps.leg(),
        }
    }

    /// Whether it is the first on its connection.
    pub const fn is_new(&self) -> bool {
        matches!(self, Self::Connection(_, true))
    }

    /// Nothing more is to be heard.
    pub fn end(&self) {
        match self {
            Self::Connection(leg, _) => leg.end(),
            Self::Stream(stamps, stream) => stamps.forget(*stream),
        }
    }
}
