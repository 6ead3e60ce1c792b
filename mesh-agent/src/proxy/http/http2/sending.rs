//! Sends a body over a stream, as fast as its peer takes it.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use super::StreamStamps;
use crate::{latency::Nanos, proxy::http::body::BoxError};

/// A body on its way.
#[derive(Debug)]
pub struct Sending<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// What came of it and waits for room, and whether nothing comes after it.
    waiting: Option<(Bytes, bool)>,
    /// Since when there is none.
    since: Option<Nanos>,
    /// Who wants to know for how long there was none.
    stamps: Option<Arc<StreamStamps>>,
}

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// Its peer does not want more of it.
    #[error("reset by its peer: {0}")]
    Reset(Reason),
    /// It did not come to its end. The stream is reset.
    #[error("the body failed: {0}")]
    Body(BoxError),
    /// The connection has ended, or the library does not take it.
    #[error(transparent)]
    Stream(#[from] h2::Error),
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Sending<B> {
    /// Sends `body` over `stream`.
    pub const fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self {
            stream,
            body,
            waiting: None,
            since: None,
            stamps: None,
        }
    }

    /// The same; `stamps` are told for how long the peer's window held it up.
    pub fn tell(self, stamps: Arc<StreamStamps>) -> Self {
        Self {
            stamps: Some(stamps),
            ..self
        }
    }

    /// The body.
    pub const fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    /// What is left of the body. The stream is reset if it was not sent to its end.
    pub fn into_body(self) -> B {
        self.body
    }

    /// Sends what there is. Ready when all is sent, or when there is no use in sending more.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        // First: who is told that the body failed is not to take that for its fault.
        if let Poll::Ready(reset) = self.stream.poll_reset(context) {
            return Poll::Ready(Err(Unsent::Reset(reset?)));
        }
        loop {
            if self.waiting.is_some() {
                let room = self.poll_room(context);
                if room.is_pending() {
                    self.since.get_or_insert_with(Nanos::now);
                }
                ready!(room)?;
                // Before it is sent: its stamp may come at once.
                if let (Some(since), Some(stamps)) = (self.since.take(), &self.stamps) {
                    stamps.held_up(self.stream.stream_id().into(), since);
                }
            }
            if let Some((bytes, is_last)) = self.waiting.take() {
                self.stream.send_data(bytes, is_last)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            let frame = match frame.transpose() {
                Ok(frame) => frame.map(Frame::into_data),
                Err(error) => {
                    self.stream.send_reset(reason_of(&*error));
                    return Poll::Ready(Err(Unsent::Body(error)));
                }
            };
            match frame {
                None => {
                    self.stream.send_data(Bytes::new(), true)?;
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(bytes)) => self.wait_for_room(bytes),
                Some(Err(other)) => {
                    if let Ok(trailers) = other.into_trailers() {
                        self.stream.send_trailers(trailers)?;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    /// Nothing that is empty is sent, but the end.
    fn wait_for_room(&mut self, bytes: Bytes) {
        let is_last = self.body.is_end_stream();
        if !bytes.is_empty() {
            // The connection's window is for those who have something to send. The library asks for the rest once
            // it has the bytes.
            self.stream.reserve_capacity(1);
        } else if !is_last {
            return;
        }
        self.waiting = Some((bytes, is_last));
    }

    /// Ready when what waits can be sent. Of that the library keeps what goes beyond the peer's window, which is one
    /// piece at most.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        let is_empty = self.waiting.as_ref().is_some_and(|(it, _)| it.is_empty());
        if is_empty || self.stream.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(room) = ready!(self.stream.poll_capacity(context)) {
            room?;
            return Poll::Ready(Ok(()));
        }
        let reset = ready!(self.stream.poll_reset(context))?;
        Poll::Ready(Err(Unsent::Reset(reset)))
    }
}

/// What a stream is reset with when what it carries failed: a reset goes through as it is.
fn reason_of(error: &(dyn Error + 'static)) -> Reason {
    let reset = error.downcast_ref::<h2::Error>();
    let reset = reset.filter(|error| error.is_reset());
    reset
        .and_then(h2::Error::reason)
        .unwrap_or(Reason::INTERNAL_ERROR)
}
