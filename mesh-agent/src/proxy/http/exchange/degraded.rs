//! What the client gets instead of a refusal or a failure.

use std::{sync::Arc, time::Instant};

use http::{HeaderValue, Response};

use super::{Exchange, Sent, Tunnel};
use crate::proxy::{
    destinations::{Destination, RequestCounters},
    http::{
        body::AnswerBody,
        deadlines,
        fallback::{DEGRADED, Fallback},
        reason::Reason,
        running::{grpc_status, is_failed},
    },
    protection::Refusal,
};

type Answered = Result<(Response<AnswerBody>, Option<Tunnel>), Refusal>;

impl Exchange<'_> {
    /// The same, or what the policy has for the case that it failed.
    pub(super) async fn or_fallback(&mut self, answered: Answered) -> Answered {
        let destination = Arc::clone(self.destination);
        let Some(fallback) = &destination.policy.fallback else {
            return answered;
        };
        let why = match &answered {
            Err(refusal) if refusal.reason.is_clients_fault() => return answered,
            Err(refusal) => refusal.reason.code(),
            Ok((answer, None)) if is_failed(answer.status(), grpc_status(answer.headers())) => {
                "failed"
            }
            Ok(_) => return answered,
        };
        // What it held is free for others.
        self.admitted = None;
        let instead = match fallback {
            Fallback::Destination(name) => {
                let named = self.session.pod.destinations.get().named(name);
                match named.filter(|_| self.body.is_whole() && !self.switch.is_wanted()) {
                    // What is rare is not to make every request larger.
                    Some(named) => Box::pin(self.ask_instead(&named)).await.ok(),
                    None => None,
                }
            }
            // There is no text that would be an answer to any call.
            Fallback::Static(_) if self.is_grpc => None,
            Fallback::Static(answer) => Some((answer.answer(), None)),
        };
        let Some((mut answer, tunnel)) = instead else {
            return answered;
        };
        // Its time is not that of the answer that is given, and its connection is free for others.
        self.measured = None;
        drop(answered);
        // There is nothing to be tried again.
        self.gave_up = None;
        RequestCounters::count(&destination.counters.degraded);
        self.end_if_switching(&mut answer);
        let headers = answer.headers_mut();
        headers.insert(DEGRADED, HeaderValue::from_static(why));
        Ok((answer, tunnel))
    }

    /// Sends the request to another destination.
    async fn ask_instead(&mut self, destination: &Arc<Destination>) -> Answered {
        let policy = &destination.policy;
        let now = Instant::now();
        let mut other = Exchange {
            measured: None,
            session: self.session,
            destination,
            head: self.head.clone(),
            body: std::mem::replace(&mut self.body, Sent::Empty),
            key: self.key,
            begun: self.begun,
            deadline: deadlines::of(&self.head.headers, policy, self.is_grpc, self.begun, now),
            is_grpc: self.is_grpc,
            switch: super::Switch::Nothing,
            client: self.client,
            gave_up: None,
            tries: self.tries,
            answered_by: None,
            admitted: None,
            turn: None,
            sent: None,
            failed: None,
        };
        let answered = other.run().await;
        let own = answered.as_ref().err().map(|refusal| refusal.reason);
        let status = match &answered {
            Ok((answer, _)) => answer.status(),
            Err(_) => Reason::status(own.unwrap_or(Reason::NoEndpoint)),
        };
        destination.counters.answer(status.as_u16(), own);
        (self.tries, self.answered_by) = (other.tries, other.answered_by);
        answered
    }
}
