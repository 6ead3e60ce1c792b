//! Tries under way: one, or several at once.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{HeaderMap, Response, StatusCode};

use super::{
    body::AnswerBody,
    reason::{REASON, Reason},
    tries::TryError,
    try_guard::TryGuard,
};
use crate::{latency::Nanos, proxy::destinations::Endpoint};

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
    /// How long that took: by packet timestamps, without the agent's own part, where the policy goes by that.
    pub took: Duration,
    /// When it was sent, if the request is measured.
    pub began: Option<Nanos>,
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
    match outcome {
        Err(_) => true,
        Ok(answer) => is_failed(answer.status(), grpc_status) && !is_refusal(answer.headers()),
    }
}

/// Whether the agent of the server has refused it, so that the server does what it can do. That is no reason to
/// leave the server alone: what is important may be let in.
pub fn is_refusal(headers: &HeaderMap) -> bool {
    let code = headers.get(REASON);
    code.is_some_and(|code| {
        let mut reasons = Reason::ALL.iter();
        reasons.any(|reason| reason.is_protection() && code == reason.code())
    })
}

/// Whether an answer says that its server could not.
pub fn is_failed(status: StatusCode, grpc_status: Option<u8>) -> bool {
    const UNAVAILABLE: u8 = 14;
    status.is_server_error() || grpc_status == Some(UNAVAILABLE)
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
