//! One try, from when its server is known.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use tokio::time::timeout;

use crate::{
    latency::Nanos,
    proxy::{
        destinations::{Destination, Endpoint},
        http::{
            hearing::Measuring,
            http2::Waiting,
            request_body::TryBody,
            running::Ended,
            session::Session,
            tries::{TryError, send},
            try_guard::TryGuard,
        },
    },
};

/// A try that has not begun.
pub(super) struct Try<'a> {
    pub session: &'a Session,
    pub destination: &'a Destination,
    /// Who hears what the server says before its answer, over HTTP/2.
    pub client: Option<&'a Waiting>,
    pub endpoint: Arc<Endpoint>,
    pub guard: TryGuard,
    pub request: Request<TryBody>,
    pub begun: Instant,
    /// How long it may take, and how long the request may.
    pub limit: Option<Duration>,
    pub left: Option<Duration>,
    /// When it began, if its request is measured; and whether its packets are.
    pub began: Option<Nanos>,
    pub measuring: Measuring,
}

impl Try<'_> {
    /// Ends when its answer begins.
    pub(super) async fn run(self) -> Ended {
        let (to, server) = (self.destination, self.endpoint.address);
        let sending = send(
            self.session,
            to,
            server,
            self.request,
            self.left,
            self.measuring,
            self.client,
        );
        let outcome = match self.limit {
            None => sending.await,
            Some(limit) => timeout(limit, sending)
                .await
                .unwrap_or(Err(TryError::Timeout)),
        };
        let elapsed = self.begun.elapsed();
        let answer = outcome.as_ref().ok();
        let by_stamps = answer.filter(|_| to.policy.by_server_time);
        let by_stamps = by_stamps.and_then(|answer| answer.body().server_time());
        Ended {
            endpoint: self.endpoint,
            guard: self.guard,
            outcome,
            // The clock of stamps can be set.
            took: by_stamps.map_or(elapsed, |took| took.min(elapsed)),
            began: self.began,
        }
    }
}
