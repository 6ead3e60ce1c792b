//! A request whose packets are measured.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use http::{HeaderValue, Request, Response};

use super::{body::AnswerBody, receipts::Receipts, session::Session};
use crate::{
    latency::{
        Arrival, Book, Heard, Key, Leg, Nanos, Stage, Stages, Stamp, TcpInfo, Trace, Unclear,
        Waypoints, Write,
    },
    policy::trace_context::Caller,
    proxy::destinations::Destination,
};

/// Longest path that is remembered, in bytes.
const LONGEST_PATH: usize = 128;

/// A request whose packets are measured. Ends up in the book, unless its answer does not come to its end.
#[derive(Debug)]
pub struct Measured {
    book: Arc<Book>,
    /// The client's connection.
    client: Arc<Leg>,
    /// Until the answer has ended: then it is the other way round.
    receipts: Option<Arc<Receipts>>,
    number: u64,
    trace: Trace,
    /// The connection to the server that answers.
    upstream: Option<Arc<Leg>>,
    /// For how long the client had not read before.
    blocked_before: u64,
    /// The answer has come to its end, and is only to be written.
    has_ended: bool,
    is_told: bool,
}

impl Measured {
    /// The next request of a session begins; `None` if it is not measured. Says, too, whether the one after
    /// it is to be.
    pub fn begin<B>(
        session: &Session,
        destination: &Destination,
        request: &Request<B>,
        now: Instant,
    ) -> Option<Box<Self>> {
        let receipts = session.receipts.as_ref()?;
        let begun = receipts.begin();
        let book = &session.pod.latency;
        receipts.want(book.chooses(&destination.sampler, now));
        let (number, turn) = begun?;
        let path = request.uri().path();
        Some(Box::new(Self {
            book: Arc::clone(book),
            client: Arc::clone(receipts.leg()),
            receipts: Some(Arc::clone(receipts)),
            number,
            trace: Trace {
                key: Key {
                    pod: session.pod.servers.pod(),
                    destination: Arc::clone(&destination.name),
                    endpoint: SocketAddr::from(([0, 0, 0, 0], 0)),
                },
                method: request.method().as_str().into(),
                path: path.get(..LONGEST_PATH).unwrap_or(path).into(),
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
            },
            upstream: None,
            blocked_before: receipts.leg().blocked(),
            has_ended: false,
            is_told: false,
        }))
    }

    /// A try of it begins.
    pub fn trying(&mut self) -> Nanos {
        let now = Nanos::now();
        if self.trace.tries == 0 {
            self.trace.way.first_try = now;
        }
        self.trace.tries += 1;
        now
    }

    /// The try that began at `tried` is answered by `endpoint`.
    pub fn answered(
        &mut self,
        endpoint: SocketAddr,
        tried: Nanos,
        connected: Nanos,
        upstream: &Arc<Leg>,
    ) {
        self.trace.key.endpoint = endpoint;
        self.trace.way.last_try = tried;
        self.trace.way.connected = connected.max(tried);
        let heard = upstream.heard();
        self.take_request(&heard);
        self.upstream = Some(Arc::clone(upstream));
    }

    fn take_request(&mut self, heard: &Heard) {
        let way = &mut self.trace.way;
        self.trace.info = heard.info;
        self.trace.resent = heard.resent;
        let least = heard.info.least_rtt.as_nanos() as u64;
        way.least_rtt = (least > 0).then_some(least);
        if let Some(first) = heard.first {
            way.answered_first = first;
        }
        if let Some(write) = heard.write {
            way.written = write.written;
            way.scheduled = write.scheduled;
            way.acknowledged = write.acknowledged;
            way.sent = write.left();
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
        let (first, last) = self.receipts.as_ref()?.look(self.number)?;
        let so_far = Waypoints {
            received_first: first,
            received_last: last,
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
        upstream.end();
        self.book.count(upstream.take_counts());
        let Some(receipts) = self.receipts.take() else {
            return;
        };
        let Some((first, last)) = receipts.take(self.number) else {
            return;
        };
        let way = &mut self.trace.way;
        way.received_first = first;
        way.received_last = last.unwrap_or(first);
        let none = Arrival::default();
        way.answered_last = heard.last.unwrap_or(none);
        if last.is_none() {
            self.tell(Err(Unclear::Overlapping));
            return;
        }
        self.has_ended = true;
        receipts.reply(self);
    }

    /// The answer is written.
    pub fn replied(mut self: Box<Self>, write: Option<Write>) {
        self.finish(write);
    }

    fn finish(&mut self, write: Option<Write>) {
        let leg = &self.client;
        let way = &mut self.trace.way;
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
        let stages = Stages::of(way);
        self.book.count(leg.take_counts());
        self.tell(stages);
    }

    fn tell(&mut self, stages: Result<Stages, Unclear>) {
        self.trace.stages = stages;
        self.is_told = true;
        self.book.add(self.trace.clone());
    }

    /// Puts it into the answer whose end it waits for.
    pub fn follow(mut self: Box<Self>, answer: &mut Response<AnswerBody>) {
        if self.upstream.is_none() {
            // The agent's own answer.
            return;
        }
        self.trace.status = answer.status().as_u16();
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
        if self.has_ended && !self.is_told {
            // The connection ended before the stamp came.
            self.finish(self.client.heard().write);
        } else if self.trace.status != 0 && !self.is_told {
            self.book.never_ended();
        }
        if let Some(upstream) = &self.upstream {
            upstream.end();
        }
    }
}
