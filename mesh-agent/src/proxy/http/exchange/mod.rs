//! One request: its tries, until one of them is good enough or none is left.

mod admission;
mod degraded;
mod hedged;
mod outcome;
mod overload;
mod sent;
mod switch;
mod trying;

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, Version, header, request::Parts};
use tokio::time;

use super::{
    body::AnswerBody,
    deadlines, headers, http2,
    measured::Measured,
    observed::Observed,
    pushback::pushback,
    reason::{Reason, is_grpc},
    refusal,
    request_body::RequestBody,
    retry_mark,
    running::Ended,
    session::Session,
    tries::TryError,
    try_guard::TryGuard,
};
use crate::{
    latency::StampedStream,
    policy::{
        deadline::Deadline,
        retry::{NoRetry, Repeatable},
        retry_budget::{BudgetLimits, FurtherTry},
    },
    proxy::{
        destinations::{Destination, RequestCounters, Retries},
        overload::Turn,
        protection::{Admitted, Refusal},
        timer::within,
    },
};

use self::{
    outcome::seen,
    overload::{hear, tell},
    sent::Sent,
    switch::{Switch, join_streams, switch_protocols},
};

/// What the client's connection or stream is joined to after the answer.
pub enum Tunnel {
    /// A connection to a server that is the client's own from now on.
    Connection {
        /// It.
        server: StampedStream,
        /// What the server said already.
        said: Bytes,
        /// What counts for as long as it is open.
        held: TryGuard,
    },
    /// A stream of HTTP/2.
    Stream(http2::Tunnel),
}

/// Answers a request. With a tunnel, the client's connection is to be joined to that after the answer. What servers
/// say before their answers is for `client`, if that speaks HTTP/2.
pub async fn exchange(
    session: &Session,
    mut request: Request<RequestBody>,
    client: Option<&http2::Waiting>,
) -> (Response<AnswerBody>, Option<Tunnel>) {
    let destination = session.destination(&request);
    let observed = Observed::begin(session, &destination.name, &mut request);
    let is_grpc = is_grpc(request.headers());
    let begun = Instant::now();
    let measured = Measured::begin(session, &destination, &request, client, begun);
    let mut exchange = Exchange::new(session, &destination, request, is_grpc, begun);
    exchange.client = client;
    exchange.measured = measured;
    let answered = exchange.run().await;
    let own = answered.as_ref().err().map(|refusal| refusal.reason);
    let (mut response, tunnel) = match exchange.or_fallback(answered).await {
        Ok(answered) => answered,
        Err(refusal) => {
            let mut answer = refusal.reason.answer(is_grpc);
            refusal::describe(&refusal, answer.headers_mut());
            exchange.end_if_switching(&mut answer);
            if refusal.reason.is_protection() {
                exchange.gave_up = Some("refused");
            }
            (answer, None)
        }
    };
    retry_mark::set(
        session,
        &exchange.head.headers,
        &mut response,
        exchange.gave_up,
    );
    tell(session, response.headers_mut());
    session.count(&destination, response.status(), own);
    if let Some(measured) = exchange.measured.take() {
        measured.follow(&mut response);
    }
    if let Some(observed) = observed {
        observed.answered(exchange.answered_by, exchange.tries, &mut response);
    }
    (response, tunnel)
}

struct Exchange<'a> {
    session: &'a Session,
    destination: &'a Arc<Destination>,
    head: Parts,
    body: Sent,
    /// What consistent hashing goes by.
    key: Option<u64>,
    begun: Instant,
    deadline: Deadline,
    is_grpc: bool,
    switch: Switch,
    /// Who hears what servers say before their answers, over HTTP/2.
    client: Option<&'a http2::Waiting>,
    /// Why a failure that could be tried again is not, if trying it elsewhere would not help.
    gave_up: Option<&'static str>,
    /// Where its time goes, if that is measured.
    measured: Option<Box<Measured>>,
    /// How often it was sent to a server.
    tries: u32,
    /// Whose answer it got.
    answered_by: Option<SocketAddr>,
    /// That it was let through, until the answer that the client gets keeps that.
    admitted: Option<Admitted>,
    /// That the pod's server works on it, likewise.
    turn: Option<Turn>,
    /// When it was last sent to a server.
    sent: Option<Instant>,
    /// How long the last try took, if that failed and there is to be another.
    failed: Option<Duration>,
}

impl<'a> Exchange<'a> {
    fn new(
        session: &'a Session,
        destination: &'a Arc<Destination>,
        request: Request<RequestBody>,
        is_grpc: bool,
        begun: Instant,
    ) -> Self {
        let policy = &destination.policy;
        let key = policy
            .hash_key
            .as_ref()
            .and_then(|key| session.hash(&request, key));
        let (mut head, body) = request.into_parts();
        let upgrade = headers::strip_hop_by_hop(&mut head.headers);
        let (switch, body) = Switch::of(&head, upgrade, body);
        let deadline = deadlines::of(&head.headers, policy, is_grpc, begun, begun);
        // A switched connection has no end that could be waited for.
        let deadline = if switch.is_wanted() {
            Deadline::NONE
        } else {
            deadline
        };
        if let Switch::Upgrade(protocol) = &switch {
            headers::set_upgrade(&mut head.headers, protocol.clone());
        }
        let retries = policy.retries.as_ref().filter(|_| !switch.is_wanted());
        Self {
            session,
            destination,
            body: body.map_or(Sent::Empty, |body| {
                Sent::new(body, retries, head.version == Version::HTTP_2)
            }),
            head,
            key,
            begun,
            deadline,
            is_grpc,
            switch,
            client: None,
            gave_up: None,
            measured: None,
            tries: 0,
            answered_by: None,
            admitted: None,
            turn: None,
            sent: None,
            failed: None,
        }
    }

    async fn run(&mut self) -> Result<(Response<AnswerBody>, Option<Tunnel>), Refusal> {
        if self.head.method == Method::CONNECT && !self.destination.policy.allow_connect {
            return Err(Reason::ConnectMethod.into());
        }
        self.be_admitted().await?;
        let active = self.destination.begin();
        let deadline = self.deadline;
        let answered = within(deadline, pin!(self.tries())).await;
        let Ok(answered) = answered else {
            self.ran_out_of_time();
            return Err(Reason::RequestTimeout.into());
        };
        let (mut response, mut guard) = answered?;
        guard.request = Some(active);
        guard.admitted = self.admitted.take();
        guard.turn = self.turn.take().filter(|_| !self.is_endless(&response));
        let protocol = headers::strip_hop_by_hop(response.headers_mut());
        if self.switch.is_made(response.status()) {
            guard.no_request();
            if let Switch::ConnectStream(stream) = &mut self.switch {
                return Ok(join_streams(response, stream.take(), guard)?);
            }
            return Ok(Box::pin(switch_protocols(response, protocol, guard)).await?);
        }
        self.end_if_switching(&mut response);
        let idle = self.destination.policy.idle;
        let response = response.map(|body| body.bounded(deadline, idle, self.is_grpc, guard));
        Ok((response, None))
    }

    /// The connection ends with an answer that does not switch it: what the client sent after such a
    /// request was not looked at.
    fn end_if_switching(&self, answer: &mut Response<AnswerBody>) {
        if self.switch.is_wanted() && self.head.version != Version::HTTP_2 {
            let close = http::HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
    }

    async fn tries(&mut self) -> Result<(Response<AnswerBody>, TryGuard), Refusal> {
        let destination = Arc::clone(self.destination);
        let retries = destination.policy.retries.as_ref();
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut place: Option<FurtherTry> = None;
        let mut further = 0;
        let mut was_stale = false;
        let mut refused = 0;
        loop {
            let ended = self.attempt(&mut tried, place.take()).await;
            let ended = ended.map_err(|refusal| self.no_further(refusal))?;
            let Ended {
                endpoint,
                guard,
                mut outcome,
                took,
                began,
            } = ended;
            if let Ok(answer) = &mut outcome {
                hear(&endpoint, answer.headers_mut());
            }
            // It looks like a fault of the server's, and is one of the client's.
            if outcome.is_err()
                && let Some(reason) = self.session.refusal.of_body()
            {
                return Err(reason.into());
            }
            // RFC 9112, 9.3.1; once, and the place is that of a further try.
            if matches!(outcome, Err(TryError::Stale(_)))
                && !was_stale
                && self.head.method.is_idempotent()
                && self.body.is_whole()
                && let Some(taken) = destination
                    .budget
                    .take(retries.map_or(STALE, |it| it.budget))
            {
                RequestCounters::count(&destination.counters.retries);
                was_stale = true;
                place = Some(taken);
                continue;
            }
            // gRFC A6, "transparent retries": the server has not seen it, so it does not count.
            if matches!(outcome, Err(TryError::Refused))
                && refused < MOST_REFUSED
                && self.body.is_whole()
            {
                refused += 1;
                continue;
            }
            if let Err(error) = &outcome {
                let (name, server) = (&destination.name, endpoint.address);
                tracing::debug!("destination {name}: {} {server}: {error}", self.head.method);
            }
            let retries = retries.filter(|_| !self.switch.is_wanted());
            let is_last = retries.is_none_or(|retries| further >= retries.policy.attempts);
            let reader = retries.filter(|_| !is_last);
            let grpc_status = self.learn(&endpoint, &mut outcome, took, reader).await;
            let again = retries.and_then(|retries| {
                let place = match self.next(retries, &outcome, grpc_status, further) {
                    Ok(wait) => destination
                        .budget
                        .take(retries.budget)
                        .map(|place| (wait, place)),
                    Err(NoRetry::AttemptsUsed) if further > 0 => {
                        self.gave_up = Some("retried");
                        return None;
                    }
                    Err(_) => return None,
                };
                if place.is_none() {
                    self.gave_up = Some("over_budget");
                    RequestCounters::count(&destination.counters.over_budget);
                }
                place
            });
            match (again, outcome) {
                (Some((wait, taken)), _) => {
                    RequestCounters::count(&destination.counters.retries);
                    drop(guard);
                    self.failed = Some(took);
                    place = Some(taken);
                    tried.push(endpoint.address);
                    further += 1;
                    time::sleep(wait).await;
                }
                (None, outcome) => {
                    self.judge(&outcome, grpc_status, took);
                    let answer = outcome.map_err(|error| error.reason())?;
                    self.answered_by = Some(endpoint.address);
                    self.measure(endpoint, began, &answer);
                    return Ok((answer, guard));
                }
            }
        }
    }

    /// One try, or one with its hedges.
    async fn attempt(
        &mut self,
        tried: &mut Vec<SocketAddr>,
        place: Option<FurtherTry>,
    ) -> Result<Ended, Refusal> {
        let retries = self.destination.policy.retries.as_ref();
        let hedge = retries.and_then(|retries| Some((retries, retries.hedge?)));
        match hedge.filter(|(retries, _)| self.may_hedge(retries)) {
            None => {
                let slot = self.connection_slot().await?;
                Ok(self.begin_try(tried, place, slot)?.run().await)
            }
            // What is rare is not to make every request larger.
            Some((retries, hedge)) => Box::pin(self.hedged(hedge, retries, tried, place)).await,
        }
    }

    fn next(
        &self,
        retries: &Retries,
        outcome: &Result<Response<AnswerBody>, TryError>,
        grpc_status: Option<u8>,
        further: u32,
    ) -> Result<Duration, NoRetry> {
        let request = Repeatable {
            is_idempotent: self.head.method.is_idempotent(),
            has_body: self.body.is_whole(),
        };
        let asked = outcome.as_ref().map(|answer| pushback(answer.headers()));
        let seen = seen(outcome, grpc_status);
        let left = self.deadline.left(Instant::now());
        retries.policy.next(
            seen,
            request,
            further,
            asked.unwrap_or_default(),
            left,
            rand::random(),
        )
    }
}

/// How often a request goes to the server again that refused it, on another connection.
const MOST_REFUSED: u32 = 2;

/// How many requests at once may be sent again because a kept connection had ended, where the policy has
/// no budget: as its default.
const STALE: BudgetLimits = BudgetLimits {
    ratio: 0.2,
    floor: 3,
};
