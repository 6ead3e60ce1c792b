//! Tries under way: one, or several at once.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{HeaderMap, Response};

use super::{body::AnswerBody, tries::TryError, try_guard::TryGuard};
use crate::proxy::destinations::Endpoint;

/// A try under way.
pub struct Running<F> {
    /// Where it was sent.
    pub endpoint: Arc<Endpoint>,
    /// When.
    pub begun: Instant,
    /// Whether it did not wait for another to fail.
    pub is_hedge: bool,
    /// Ends when its answer begins.
    pub trying: Pin<Box<F>>,
}

/// A try that has an answer, or will have none.
pub struct Ended {
    /// Where it was sent.
    pub endpoint: Arc<Endpoint>,
    /// Holds its places as long as its answer lasts.
    pub guard: TryGuard,
    /// Its answer, or why there is none.
    pub outcome: Result<Response<AnswerBody>, TryError>,
    /// How long that took.
    pub took: Duration,
}

impl Ended {
    /// Whether it counts against its server, by what its headers say.
    pub fn is_failure(&self) -> bool {
        let answer = self.outcome.as_ref().ok();
        let status = answer.and_then(|answer| grpc_status(answer.headers()));
        is_failure(&self.outcome, status)
    }
}

/// What counts against a server: no answer, a 5xx, or a gRPC status that says that it could not.
pub fn is_failure(
    outcome: &Result<Response<AnswerBody>, TryError>,
    grpc_status: Option<u8>,
) -> bool {
    const UNAVAILABLE: u8 = 14;
    match outcome {
        Err(_) => true,
        Ok(answer) => answer.status().is_server_error() || grpc_status == Some(UNAVAILABLE),
    }
}

/// The gRPC status in headers or trailers.
pub fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Waits for the first to end, and takes it out. At least one is running.
pub async fn first_of<F: Future>(running: &mut Vec<Running<F>>) -> (Running<F>, F::Output) {
    let (index, ended) = poll_fn(|context| {
        for (index, running) in running.iter_mut().enumerate() {
            if let Poll::Ready(ended) = running.trying.as_mut().poll(context) {
                return Poll::Ready((index, ended));
            }
        }
        Poll::Pending
    })
    .await;
    (running.swap_remove(index), ended)
}
