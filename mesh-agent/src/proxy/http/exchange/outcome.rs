//! What became of tries and requests, and who learns from it.

use std::time::{Duration, Instant};

use http::{HeaderMap, Response};
use tokio::time;

use super::Exchange;
use crate::{
    policy::{
        deadline::Deadline,
        retry::{HasHeader, TryOutcome},
    },
    proxy::{
        destinations::{Endpoint, Retries},
        http::{
            body::AnswerBody,
            running::{grpc_status, is_failure, is_refusal},
            tries::TryError,
        },
        protection::Refusal,
    },
};

impl Exchange<'_> {
    /// Learns from what became of a try how its server does. Says the gRPC status, as far as it is known.
    pub(super) async fn learn(
        &self,
        endpoint: &Endpoint,
        outcome: &mut Result<Response<AnswerBody>, TryError>,
        took: Duration,
        retries: Option<&Retries>,
    ) -> Option<u8> {
        let destination = self.destination;
        let grpc_status = match outcome {
            Ok(answer) if self.is_grpc => grpc_status_of(answer, retries).await,
            _ => None,
        };
        let now = self.ended(took);
        if is_failure(outcome, grpc_status) {
            destination.failed(endpoint, took, now);
        } else if outcome.as_ref().is_ok_and(|it| is_refusal(it.headers())) {
            destination.refused(endpoint, now);
        } else {
            destination.answered(endpoint, took, now);
        }
        grpc_status
    }

    /// When a try ended that took so long: what the clock says costs as much as much of what is done here.
    fn ended(&self, took: Duration) -> Instant {
        self.sent.map_or_else(Instant::now, |sent| sent + took)
    }

    /// What became of it, for what learns from that.
    pub(super) fn judge(
        &mut self,
        outcome: &Result<Response<AnswerBody>, TryError>,
        grpc_status: Option<u8>,
        took: Duration,
    ) {
        if let Some(turn) = &self.turn {
            let is_failure = is_failure(outcome, grpc_status);
            turn.answered(took, is_failure);
        }
        let is_call = self.is_grpc;
        let now = self.ended(took);
        let Some(admitted) = &mut self.admitted else {
            return;
        };
        if outcome
            .as_ref()
            .is_ok_and(|answer| is_refusal(answer.headers()))
        {
            admitted.refused(now);
            return;
        }
        let may_fail_yet = is_call && outcome.is_ok() && grpc_status.is_none();
        if !(may_fail_yet && admitted.waits_for_trailers(took)) {
            admitted.ended(seen(outcome, grpc_status), took, now);
        }
    }

    /// Its deadline has come before an answer. Where that was its caller's, and came sooner than the policy's, it
    /// says nothing of the server.
    pub(super) fn ran_out_of_time(&mut self) {
        let own = Deadline::NONE.within(self.destination.policy.request, self.begun);
        if own.at() != self.deadline.at() {
            return;
        }
        let Some((admitted, sent)) = self.admitted.as_mut().zip(self.sent) else {
            return;
        };
        let now = Instant::now();
        let took = now.saturating_duration_since(sent);
        admitted.ended(TryOutcome::PerTryTimeout, took, now);
    }

    /// There is no further try, after one that failed: that one says what became of it.
    pub(super) fn no_further(&mut self, refusal: Refusal) -> Refusal {
        if let (Some(took), Some(admitted)) = (self.failed.take(), &mut self.admitted) {
            admitted.ended(TryOutcome::Reset, took, Instant::now());
        }
        refusal
    }
}

/// An outcome as policies see it.
pub(super) fn seen(
    outcome: &Result<Response<AnswerBody>, TryError>,
    grpc_status: Option<u8>,
) -> TryOutcome<'_> {
    match outcome {
        Err(error) => error.outcome(),
        Ok(answer) => TryOutcome::Answer {
            status: answer.status().as_u16(),
            grpc_status,
            headers: answer.headers(),
        },
    }
}

impl HasHeader for HeaderMap {
    fn has_header(&self, name: &str) -> bool {
        self.contains_key(name)
    }
}

/// How long trailers that come without an answer's body are waited for: servers that fail send them
/// in the same breath as the headers.
const TRAILERS_AT_ONCE: Duration = Duration::from_millis(10);

/// The gRPC status, if it is known before the body is passed on: from the headers, or, if there are
/// `retries` to be decided on, from trailers that come at once.
async fn grpc_status_of(
    answer: &mut Response<AnswerBody>,
    retries: Option<&Retries>,
) -> Option<u8> {
    if let Some(status) = grpc_status(answer.headers()) {
        return Some(status);
    }
    retries.filter(|retries| retries.policy.looks_at_trailers())?;
    let first = time::timeout(TRAILERS_AT_ONCE, answer.body_mut().read_ahead());
    grpc_status(first.await.ok()??.ok()?.trailers_ref()?)
}
