//! One try, from when its server is known.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response, Version, header};
use http_body::Body as _;

use super::Exchange;
use crate::{
    latency::Nanos,
    policy::{deadline::Deadline, retry_budget::FurtherTry},
    proxy::{
        destinations::{Destination, Endpoint},
        http::{
            body::AnswerBody,
            deadlines,
            hearing::Measuring,
            http2::Waiting,
            interim,
            reason::Reason,
            request_body::TryBody,
            running::Ended,
            session::Session,
            tries::{TryError, send},
            try_guard::TryGuard,
            upstream::{Key, handshake},
        },
        protection::{Admitted, Slot},
        timer::within,
        upstream::SeenAs,
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
        let limit = Deadline::NONE.within(self.limit, self.begun);
        let outcome = within(limit, pin!(sending)).await;
        let outcome = outcome.unwrap_or(Err(TryError::Timeout));
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

impl<'a> Exchange<'a> {
    /// Begins a try at an endpoint other than those in `tried`, if it can be.
    pub(super) fn begin_try(
        &mut self,
        tried: &[SocketAddr],
        place: Option<FurtherTry>,
        slot: Option<Slot>,
    ) -> Result<Try<'a>, Reason> {
        let now = Instant::now();
        let destination = self.destination;
        let endpoint = destination.pick(self.key, tried, now);
        let endpoint = endpoint.ok_or(Reason::NoEndpoint)?;
        let endpoint = self.not_overloaded(endpoint, tried, now)?;
        self.tries += 1;
        self.sent = Some(now);
        let guard = TryGuard::new(Arc::clone(&endpoint), place, slot);
        let of_probe = self.admitted.as_ref().and_then(Admitted::probe_timeout);
        let limits = destination.try_timeout().into_iter().chain(of_probe);
        let limit = limits.min().filter(|_| !self.switch.is_wanted());
        let mut head = self.head.clone();
        let left = self.deadline.within(limit, now).left(now);
        deadlines::pass_on(&mut head.headers, &destination.policy, self.is_grpc, left);
        let body = self.body.begin();
        // Without it the HTTP library sends no body with a GET whose length it does not know.
        if head.version != Version::HTTP_2 && body.size_hint().exact().is_none() {
            let chunked = http::HeaderValue::from_static("chunked");
            head.headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        let mut request = Request::from_parts(head, body);
        interim::watch(&mut request, self.session);
        let left = self.deadline.left(now);
        let limit = limit.filter(|limit| left.is_none_or(|left| *limit < left));
        let began = self.measured.as_mut().map(|measured| measured.trying());
        let by_server_time = destination.policy.by_server_time;
        let measuring = if !(began.is_some() || by_server_time) || self.switch.is_wanted() {
            Measuring::No
        } else if self.measured.as_ref().is_some_and(|it| it.is_whole()) {
            Measuring::WholeWay
        } else {
            Measuring::Sent
        };
        Ok(Try {
            session: self.session,
            destination,
            client: self.client,
            endpoint,
            guard,
            request,
            begun: now,
            limit,
            left,
            began,
            measuring,
        })
    }

    /// The try that began at `began` has the answer that the request gets.
    pub(super) fn measure(
        &mut self,
        endpoint: Arc<Endpoint>,
        began: Option<Nanos>,
        answer: &Response<AnswerBody>,
    ) {
        if let Some(measured) = &mut self.measured
            && let (Some(began), Some((hearing, since))) = (began, answer.body().hearing())
        {
            let (session, destination) = (self.session, self.destination);
            let now = measured.answered(session, destination, &endpoint, began, since, hearing);
            // What loopback takes stays what it is.
            if session.is_inbound() && endpoint.round_trip.is_known() {
                return;
            }
            let book = &session.pod.latency;
            let turn = || book.handshake_turn(now);
            let may = || book.may_shake_hands(now);
            if endpoint
                .round_trip
                .wants_handshake(book.age(now), turn, may)
            {
                self.measure_handshake(endpoint);
            }
        }
    }

    /// Has a connection made to a server whose handshake tells what the network takes. Nobody waits for it.
    fn measure_handshake(&self, endpoint: Arc<Endpoint>) {
        let session = self.session;
        let mut key = Key {
            server: endpoint.address,
            seen_as: session.seen_as,
        };
        let mut most = usize::MAX;
        if session.is_inbound() {
            // A client has one connection, and no other.
            key.seen_as = SeenAs::Pod(None);
            most = 1;
        }
        let within = self.destination.policy.connect;
        handshake::measure(&session.pod, key, within, endpoint, most);
    }
}
