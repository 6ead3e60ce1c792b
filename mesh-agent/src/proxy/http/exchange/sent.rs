//! The request's body, before the tries that it goes with.

use http_body::Body as _;

use crate::proxy::{
    destinations::Retries,
    http::request_body::{KeptBody, RequestBody, TryBody},
};

/// How much of a request's body is kept for when an HTTP/2 server refuses it, where the policy has no
/// retries, in bytes.
const KEPT_FOR_REFUSED: usize = 64 << 10;

/// The request's body, before the try that it goes with.
pub(super) enum Sent {
    Empty,
    Once(Option<RequestBody>),
    Kept(KeptBody),
}

impl Sent {
    pub(super) fn new(body: RequestBody, retries: Option<&Retries>, is_http2: bool) -> Self {
        let retries =
            retries.filter(|retries| retries.policy.attempts > 0 || retries.hedge.is_some());
        match retries.map(|retries| retries.buffer) {
            _ if body.is_end_stream() => Self::Empty,
            Some(most) => Self::Kept(KeptBody::new(body, most)),
            None if is_http2 => Self::Kept(KeptBody::new(body, KEPT_FOR_REFUSED)),
            None => Self::Once(Some(body)),
        }
    }

    pub(super) fn begin(&mut self) -> TryBody {
        match self {
            Self::Empty => TryBody::Empty,
            Self::Once(body) => body.take().map_or(TryBody::Empty, TryBody::Once),
            Self::Kept(body) => body.begin(),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            // Until the first try has taken it.
            Self::Once(body) => body.is_some(),
            Self::Kept(body) => body.is_whole(),
        }
    }

    /// Whether another try can send it at once, beside those under way.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(_) => false,
            Self::Kept(body) => body.is_complete(),
        }
    }
}
