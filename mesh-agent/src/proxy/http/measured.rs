//! A request whose packets are measured.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response};

use super::{
    body::AnswerBody,
    hearing::Hearing,
    http2::{StreamStamps, Waiting},
    receipts::Receipts,
    session::{Session, Stamps},
};
use crate::{
    latency::{
        Answered, Arrival, Book, Heard, Key, Leg, Nanos, Stage, Stages, Stamp, TcpInfo, Trace,
        Unclear, Waypoints, Write,
    },
    policy::trace_context::Caller,
    proxy::destinations::{Destination, Endpoint},
};

/// By how much the system's clock may be ahead of the one that is never set.
const CLOCKS_DIFFER: Duration = Duration::from_millis(10);
/// Longest path that is remembered, in bytes.
const LONGEST_PATH: usize = 128;

/// A request whose packets are measured. Ends up in the book, unless its answer does not come to its end.
#[derive(Debug)]
pub struct Measured {
    book: Arc<Book>,
    /// The client's connection.
    client: Arc<Leg>,
    /// Until the answer has ended: then it is the other way round.
    side: Option<Side>,
    /// Nobody else has it yet.
    trace: Arc<Trace>,
    /// The connection to the server that answers.
    upstream: Option<Hearing>,
    /// For how long the client had not read before: at first the request, then the answer's end.
    blocked_before: u64,
    begun: Instant,
    phase: Phase,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is under way.
    Begun,
    /// The same, and the answer began before the request's end was sent.
    Overlapping,
    /// The answer has come to its end, and is being written; on a stream of several, or on its own connection.
    Replying { is_stream: bool },
    /// It is in the book.
    Told,
}

/// Where a request came from.
#[derive(Debug)]
enum Side {
    /// By its number on the connection.
    Http1(Arc<Receipts>, u64),
    /// By its stream.
    Http2(Arc<StreamStamps>, u32),
}

impl Side {
    fn leg(&self) -> &Arc<Leg> {
        match self {
            Self::Http1(receipts, _) => receipts.leg(),
            Self::Http2(stamps, _) => stamps.leg(),
        }
    }

    /// When its first byte came, and its last, if that has come.
    fn look(&self) -> Option<(Arrival, Option<Arrival>)> {
        match self {
            Self::Http1(receipts, number) => receipts.look(*number),
            Self::Http2(stamps, stream) => stamps.received(*stream),
        }
    }
}

impl Measured {
    /// The next request of a session begins; `None` if it is not measured. Says, too, whether the one after
    /// it is to be.
    pub fn begin<B>(
        session: &Session,
        destination: &Destination,
        request: &Request<B>,
        client: Option<&Waiting>,
        now: Instant,
    ) -> Option<Box<Self>> {
        let book = &session.pod.latency;
        let (side, turn) = match (&session.stamps, client) {
            (Stamps::Requests(receipts), _) => {
                let begun = receipts.begin();
                receipts.want(book.chooses(&destination.sampler, now));
                let (number, turn) = begun?;
                destination.sampler.served();
                (Side::Http1(Arc::clone(receipts), number), turn)
            }
            (Stamps::Streams(stamps), Some(client)) => {
                stamps.look(&destination.sampler, now);
                let stream = client.stream();
                if !stamps.is_watched(stream) {
                    return None;
                }
                destination.sampler.served();
                (Side::Http2(Arc::clone(stamps), stream), None)
            }
            _ => return None,
        };
        let path = request.uri().path();
        Some(Box::new(Self {
            book: Arc::clone(book),
            blocked_before: side.leg().blocked(),
            begun: now,
            client: Arc::clone(side.leg()),
            side: Some(side),
            trace: Arc::new(Trace {
                key: Key {
                    pod: session.pod.servers.pod(),
                    destination: Arc::clone(&destination.name),
                    endpoint: SocketAddr::from(([0, 0, 0, 0], 0)),
                },
                method: request.method().clone(),
                path: path[..path.floor_char_boundary(LONGEST_PATH)].into(),
                status: 0,
                trace_id: request
                    .headers()
                    .get("traceparent")
                    .and_then(|value| Caller::of_traceparent(value.as_bytes()))
                    .map(|caller| caller.trace),
                tries: 0,
                way: Waypoints {
                    turn,
                    ..Waypoints::default()
                },
                stages: Ok(Stages::default()),
                info: TcpInfo::default(),
                resent: 0,
            }),
            upstream: None,
            phase: Phase::Begun,
        }))
    }

    /// A try of it begins.
    pub fn trying(&mut self) -> Nanos {
        let now = Nanos::now();
        let trace = Arc::make_mut(&mut self.trace);
        if trace.tries == 0 {
            trace.way.first_try = now;
        }
        trace.tries += 1;
        now
    }

    /// The try that began at `tried` is answered by `endpoint`.
    pub fn answered(
        &mut self,
        endpoint: &Endpoint,
        tried: Nanos,
        connected: Nanos,
        upstream: Hearing,
    ) {
        let trace = Arc::make_mut(&mut self.trace);
        trace.key.endpoint = endpoint.address;
        trace.way.last_try = tried;
        trace.way.connected = connected.max(tried);
        let heard = upstream.heard();
        trace.resent = upstream.leg().take_resent();
        self.take_request(&heard);
        let way = &mut Arc::make_mut(&mut self.trace).way;
        let (sent, answered) = (way.sent.at, way.answered_first.stamp.at);
        let acknowledged = way.acknowledged;
        let bound = endpoint.round_trip.bound(
            Answered {
                least: heard.info.least_rtt,
                is_new: upstream.is_new(),
                acknowledged: acknowledged.map(|at| at.after(sent)),
                gap: acknowledged.map_or(Duration::ZERO, |at| answered.after(at)),
            },
            self.book.age(Instant::now()),
        );
        way.least_rtt = (!bound.is_zero()).then_some(bound.as_nanos() as u64);
        self.upstream = Some(upstream);
    }

    fn take_request(&mut self, heard: &Heard) {
        let trace = Arc::make_mut(&mut self.trace);
        let way = &mut trace.way;
        trace.info = heard.info;
        if let Some(first) = heard.first {
            way.answered_first = first;
        }
        if let Some(write) = heard.write {
            way.written = write.written;
            way.scheduled = write.scheduled;
            way.acknowledged = write.acknowledged;
            way.sent = write.left();
        } else {
            // No stamp could be asked for: it was written right after there was a connection, as a rule.
            way.written = way.connected;
            way.sent.at = way.connected;
        }
        if !heard.has_end {
            self.phase = Phase::Overlapping;
        }
    }

    /// How long the server took, and the network, as far as it is known.
    pub fn server_timing(&self) -> Option<HeaderValue> {
        let way = &self.trace.way;
        let so_far = Waypoints {
            answered_last: way.answered_first,
            replied: Stamp {
                at: way.answered_first.read,
                ..Stamp::default()
            },
            ..*way
        };
        let (first, last) = self.side.as_ref()?.look()?;
        let so_far = Waypoints {
            received_first: first,
            received_last: last?,
            ..so_far
        };
        let stages = Stages::of(&so_far).ok()?;
        let shown = [Stage::Queue, Stage::Mesh, Stage::Network, Stage::Server];
        let texts: Vec<String> = shown
            .iter()
            .map(|stage| {
                let millis = stages.get(*stage) as f64 / 1e6;
                format!("{};dur={millis:.3}", stage.name())
            })
            .collect();
        HeaderValue::from_str(&texts.join(", ")).ok()
    }

    /// The answer has come to its end.
    pub fn ended(mut self: Box<Self>) {
        let Some(upstream) = self.upstream.take() else {
            return;
        };
        let heard = upstream.heard();
        let is_whole = upstream.leg().is_whole();
        upstream.end();
        self.book.count(upstream.leg().take_counts());
        let Some((first, last)) = self.side.as_ref().and_then(Side::look) else {
            return;
        };
        let way = &mut Arc::make_mut(&mut self.trace).way;
        way.received_first = first;
        way.received_last = last.unwrap_or(first);
        let none = Arrival::default();
        way.answered_last = heard.last.unwrap_or(none);
        if last.is_none() || self.phase == Phase::Overlapping {
            self.tell(Err(Unclear::Overlapping));
            return;
        }
        // What it did not read before held up the server, and is in the answer's own time, but for what had come.
        let blocked = self.client.blocked();
        if self.client.blocked_until() > way.answered_last.stamp.at {
            way.held_up = blocked.saturating_sub(self.blocked_before);
        }
        self.blocked_before = blocked;
        match self.side.take() {
            Some(Side::Http1(receipts, number)) => {
                self.phase = Phase::Replying { is_stream: false };
                receipts.reply(number, self, is_whole);
            }
            Some(Side::Http2(stamps, stream)) => {
                self.phase = Phase::Replying { is_stream: true };
                stamps.reply(stream, self);
            }
            None => {}
        }
    }

    /// The answer is written.
    pub fn replied(&mut self, write: Option<Write>) {
        let leg = &self.client;
        let way = &mut Arc::make_mut(&mut self.trace).way;
        let now = Nanos::now();
        way.blocked = leg.blocked().saturating_sub(self.blocked_before);
        way.answer_written = write.map_or(now, |write| write.written);
        way.replied = write.map_or(
            Stamp {
                at: now,
                ..Stamp::default()
            },
            |write| write.left(),
        );
        // Both clocks go alike, unless one was set.
        let by_stamps = way.replied.at.after(way.first_try);
        let stages = if by_stamps > self.begun.elapsed() + CLOCKS_DIFFER {
            Err(Unclear::Inconsistent)
        } else {
            Stages::of(way)
        };
        self.book.count(leg.take_counts());
        self.tell(stages);
    }

    fn tell(&mut self, stages: Result<Stages, Unclear>) {
        Arc::make_mut(&mut self.trace).stages = stages;
        self.phase = Phase::Told;
        self.book.add(Arc::clone(&self.trace));
    }

    /// Puts it into the answer whose end it waits for.
    pub fn follow(mut self: Box<Self>, answer: &mut Response<AnswerBody>) {
        if self.upstream.is_none() {
            // The agent's own answer.
            return;
        }
        Arc::make_mut(&mut self.trace).status = answer.status().as_u16();
        self.book.begun();
        if self.book.tells_clients()
            && let Some(timing) = self.server_timing()
        {
            answer.headers_mut().append("server-timing", timing);
        }
        answer.body_mut().measure(self);
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some(Side::Http2(stamps, stream)) = &self.side {
            stamps.forget(*stream);
        }
        match self.phase {
            Phase::Told => {}
            // The connection ended before the stamp came.
            Phase::Replying { is_stream: false } => self.replied(self.client.heard().write),
            _ if self.trace.status != 0 => self.book.never_ended(),
            _ => {}
        }
        if let Some(upstream) = &self.upstream {
            upstream.end();
        }
    }
}

#[cfg(test)]
mod fixture;
