//! A client that waits for its answer: it may hear something before, and may give up.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{Response, StatusCode};

use crate::proxy::http::framing::LARGEST_HEAD;

/// The client's stream, until its answer begins.
#[derive(Debug)]
pub struct Waiting {
    stream: Mutex<SendResponse<Bytes>>,
    /// How long the heads of all interim answers may still be, in bytes: together no longer than one head, as the
    /// client's window does not hold them up.
    interim_left: AtomicUsize,
}

impl Waiting {
    /// A client that waits for the answer to its request.
    pub const fn new(stream: SendResponse<Bytes>) -> Self {
        Self {
            stream: Mutex::new(stream),
            interim_left: AtomicUsize::new(LARGEST_HEAD),
        }
    }

    /// Its number.
    pub fn stream(&self) -> u32 {
        self.lock().stream_id().into()
    }

    /// Passes on what a server says before its answer. 101 is none of HTTP/2 (RFC 9113, 8.6).
    pub fn interim(&self, answer: Response<()>) {
        // As RFC 9113, 6.5.2 counts.
        let fields = answer.headers().iter();
        let length: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        let left = self.interim_left.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(length + 42) else {
            return;
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        self.interim_left.store(left, Ordering::Relaxed);
        let _gone = self.lock().send_informational(answer);
    }

    /// What `answer` comes to, unless the client resets the stream first.
    pub async fn unless_reset<F: Future>(&self, mut answer: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|context| {
            // First: the request's body fails with it, which would look like a fault of the server's.
            if self.lock().poll_reset(context).is_ready() {
                return Poll::Ready(None);
            }
            answer.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// The answer begins.
    pub fn answer(&self, head: Response<()>, is_all: bool) -> Result<SendStream<Bytes>, h2::Error> {
        let mut stream = self.lock();
        stream
            .send_response(head, is_all)
            .inspect_err(|_| stream.send_reset(Reason::INTERNAL_ERROR))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SendResponse<Bytes>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
