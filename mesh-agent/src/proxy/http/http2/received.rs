//! What comes over a stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};

use crate::proxy::http::body::BoxError;

/// The body of a request or an answer. Its peer may send more as it is passed on.
#[derive(Debug)]
pub struct Received {
    stream: RecvStream,
    /// Bytes that are still to come, if that is known.
    left: Option<u64>,
    has_data: bool,
}

impl Received {
    /// What comes over `stream`.
    pub const fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            left: None,
            has_data: true,
        }
    }

    /// The same, after these headers, which may say how much it is: the HTTP/2 library sees to it that they are
    /// right.
    pub fn after(headers: &HeaderMap, stream: RecvStream) -> Self {
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            left: length,
            ..Self::new(stream)
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.has_data {
            match ready!(this.stream.poll_data(context)) {
                Some(Ok(bytes)) => {
                    this.left = this
                        .left
                        .map(|left| left.saturating_sub(bytes.len() as u64));
                    // After the end, the library does that by itself.
                    if !this.stream.is_end_stream() {
                        let _reset = this.stream.flow_control().release_capacity(bytes.len());
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => this.has_data = false,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(context));
        Poll::Ready(
            trailers
                .transpose()
                .map(|trailers| trailers.map(Frame::trailers).map_err(Into::into)),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}
