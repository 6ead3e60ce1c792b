//! The client's side of a measured request.

use std::sync::Arc;

use crate::{
    latency::{Arrival, Leg},
    proxy::http::{http2::StreamStamps, receipts::Receipts},
};

/// Where a request came from.
#[derive(Debug)]
pub(super) enum Side {
    /// By its number on the connection.
    Http1(Arc<Receipts>, u64),
    /// By its stream.
    Http2(Arc<StreamStamps>, u32),
}

impl Side {
    pub(super) fn leg(&self) -> &Arc<Leg> {
        match self {
            Self::Http1(receipts, _) => receipts.leg(),
            Self::Http2(stamps, _) => stamps.leg(),
        }
    }

    /// When its first byte came, and its last, if that has come.
    pub(super) fn look(&self) -> Option<(Arrival, Option<Arrival>)> {
        match self {
            Self::Http1(receipts, number) => receipts.look(*number),
            Self::Http2(stamps, stream) => stamps.received(*stream),
        }
    }
}
