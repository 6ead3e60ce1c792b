//! What comes over a stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
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
    is_servers: bool,
}

impl Received {
    /// What comes from a client over `stream` after these headers.
    pub fn from_client(headers: &HeaderMap, stream: RecvStream) -> Self {
        // The HTTP/2 library sees to it that it is right.
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            stream,
            left: length,
            has_data: true,
            is_servers: false,
        }
    }

    /// The same from a server.
    pub fn from_server(headers: &HeaderMap, stream: RecvStream) -> Self {
        Self {
            is_servers: true,
            ..Self::from_client(headers, stream)
        }
    }

    /// Whether this is a server's way to say that there is no more. Node's servers end an answer so now and then
    /// (seen with 20.20): by a reset for no error, without the end that is to precede it (RFC 9113, 8.1).
    fn is_end(&self, error: &h2::Error) -> bool {
        self.is_servers
            && error.is_reset()
            && error.is_remote()
            && error.reason() == Some(Reason::NO_ERROR)
            && self.left.unwrap_or(0) == 0
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
                Some(Err(error)) if this.is_end(&error) => return Poll::Ready(None),
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
