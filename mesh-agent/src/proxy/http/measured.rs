//! A request whose packets are measured.

mod detail;
#[cfg(test)]
mod fixture;
mod side;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response};

use self::{detail::Detail, side::Side};
use super::{
    body::AnswerBody,
    hearing::Hearing,
    http2::Waiting,
    session::{Session, Stamps},
};
use crate::{
    latency::{
        Account, Answered, Heard, Leg, Nanos, Outcome, Stage, Stages, Stamp, TcpInfo, Trace,
        Unclear, Waypoints, Write, whole_way,
    },
    proxy::destinations::{Destination, Endpoint},
};

/// A request whose packets are measured. Ends up in the book, unless its answer does not come to its end.
#[derive(Debug)]
pub struct Measured {
    /// The client's connection.
    client: Arc<Leg>,
    /// Until the answer has ended: then it is the other way round.
    side: Option<Side>,
    /// Where it is added to, once it is known who answers.
    account: Option<Arc<Account>>,
    status: u16,
    tries: u32,
    way: Waypoints,
    info: TcpInfo,
    resent: u32,
    /// All of its way is stamped.
    is_whole: bool,
    /// Of a request that is remembered by itself, which goes with that.
    detail: Option<Box<Detail>>,
    /// The connection to the server that answers.
    upstream: Option<Hearing>,
    /// For how long the client had not read before: at first the request, then the answer's end.
    blocked_before: u64,
    begun: Instant,
    phase: Phase,
}

/// For how long an answer waited for its client's window.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldUp {
    /// In all, in nanoseconds.
    pub nanos: u64,
    /// When that ended last.
    pub until: Nanos,
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
        let (side, turn, is_wanted) = match (&session.stamps, client) {
            (Stamps::Requests(receipts), _) => {
                let begun = receipts.begin(destination.sampler.is_wanted());
                receipts.want(book.chooses(&destination.sampler, now));
                let (number, turn) = begun?;
                let is_wanted = destination.sampler.served();
                (Side::Http1(Arc::clone(receipts), number), turn, is_wanted)
            }
            (Stamps::Streams(stamps), Some(client)) => {
                stamps.look(&destination.sampler, now);
                let stream = client.stream();
                if !stamps.is_for(stream, &destination.sampler, now) {
                    return None;
                }
                let is_wanted = destination.sampler.served();
                (Side::Http2(Arc::clone(stamps), stream), None, is_wanted)
            }
            _ => return None,
        };
        let is_whole = whole_way::is_turn(now) || is_wanted;
        Some(Box::new(Self {
            blocked_before: side.leg().blocked(),
            begun: now,
            client: Arc::clone(side.leg()),
            side: Some(side),
            account: None,
            status: 0,
            tries: 0,
            way: Waypoints {
                turn,
                ..Waypoints::default()
            },
            info: TcpInfo::default(),
            resent: 0,
            is_whole,
            detail: is_whole.then(|| Detail::of(request)),
            upstream: None,
            phase: Phase::Begun,
        }))
    }

    /// Whether stamps of its whole way are wanted.
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// A try of it begins.
    pub fn trying(&mut self) -> Nanos {
        let now = Nanos::now();
        if self.tries == 0 {
            self.way.first_try = now;
        }
        self.tries += 1;
        now
    }

    /// The try that began at `tried` is answered by `endpoint` of `destination`, over a connection that was there since
    /// `connected`, or before the try began. Says what time it is.
    pub fn answered(
        &mut self,
        session: &Session,
        destination: &Destination,
        endpoint: &Endpoint,
        tried: Nanos,
        connected: Option<Nanos>,
        upstream: Hearing,
    ) -> Instant {
        self.way.last_try = tried;
        self.way.connected = connected.map_or(tried, |at| at.max(tried));
        let heard = upstream.heard();
        self.take_request(&heard);
        let way = &mut self.way;
        let sent = way.sent_again.unwrap_or(way.sent.at);
        let answered = way.answered_first.stamp.at;
        let acknowledged = way.acknowledged;
        // Not by the stamps: their clock can be set.
        let now = Instant::now();
        let (book, pod, name) = (&session.pod.latency, &session.pod_name, &destination.name);
        let bound = endpoint.round_trip.bound(
            Answered {
                least: heard.info.least_rtt,
                is_new: upstream.is_new(),
                acknowledged: acknowledged.map(|at| at.after(sent)),
                gap: acknowledged.map_or(Duration::ZERO, |at| answered.after(at)),
            },
            book.age(now),
        );
        way.least_rtt = (!bound.is_zero()).then_some(bound.as_nanos() as u64);
        self.upstream = Some(upstream);
        self.account = Some(Account::of(book, pod, name, endpoint.address, now));
        now
    }

    fn take_request(&mut self, heard: &Heard) {
        let way = &mut self.way;
        self.info = heard.info;
        self.resent = heard.resent;
        if let Some(first) = heard.first {
            way.answered_first = first;
        }
        if let Some(write) = heard.write {
            way.written = write.written;
            way.scheduled = write.scheduled;
            way.sent_again = write.sent_again;
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
        let way = &self.way;
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
        let (Some(upstream), Some(account)) = (self.upstream.take(), &self.account) else {
            return;
        };
        let (answered_last, counts) = upstream.end_of_answer();
        account.count(counts);
        let received = self.side.as_ref().and_then(Side::look);
        let (Some((first, last)), Some(answered_last)) = (received, answered_last) else {
            // So many are under way on its connection that it was lost from sight.
            return;
        };
        let way = &mut self.way;
        way.received_first = first;
        way.received_last = last.unwrap_or(first);
        way.answered_last = answered_last;
        if last.is_none() || self.phase == Phase::Overlapping {
            self.tell(Err(Unclear::Overlapping), Instant::now());
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
                receipts.reply(number, self);
            }
            Some(Side::Http2(stamps, stream)) => {
                self.phase = Phase::Replying { is_stream: true };
                stamps.reply(stream, self);
            }
            None => {}
        }
    }

    /// All of the answer had been written as it came, before it was known to have ended.
    pub fn was_replied(&mut self) {
        let at = self.way.answered_last.read;
        let stamp = Stamp {
            at,
            ..Stamp::default()
        };
        self.replied_at(at, stamp, Nanos::now());
    }

    /// The answer is written. What waited for the client's window is `held_up`.
    pub fn replied(&mut self, write: Option<Write>, held_up: HeldUp) {
        let way = &mut self.way;
        let blocked = self.client.blocked().saturating_sub(self.blocked_before);
        // Before that it was the server that was waited for, or the client in vain.
        let since_then = held_up.until.after(way.answered_last.read).as_nanos() as u64;
        let held_up = held_up.nanos.min(since_then);
        way.blocked = blocked.max(held_up);
        let now = Nanos::now();
        let at_once = Stamp {
            at: now,
            ..Stamp::default()
        };
        let written = write.map_or(now, |write| write.written);
        let left = write.map_or(at_once, |write| write.left());
        self.replied_at(written, left, now);
    }

    fn replied_at(&mut self, written: Nanos, left: Stamp, now: Nanos) {
        self.way.answer_written = written;
        self.way.replied = left;
        let instant = Instant::now();
        let begun = self.begun;
        let account = self.account.as_ref();
        let was_set = account.is_some_and(|it| it.book().was_clock_set(begun, (instant, now)));
        let stages = if was_set {
            Err(Unclear::Inconsistent)
        } else {
            Stages::of(&self.way)
        };
        if self.is_whole
            && let Some(account) = &self.account
        {
            account.count(self.client.take_counts());
        }
        self.tell(stages, instant);
    }

    fn tell(&mut self, stages: Result<Stages, Unclear>, now: Instant) {
        self.phase = Phase::Told;
        let outcome = Outcome {
            stages,
            source: self.way.sent.source,
            info: self.info,
            resent: self.resent,
        };
        let Some(account) = &self.account else {
            return;
        };
        account.add(outcome, now);
        if let Some(detail) = self.detail.take() {
            account.book().remember(Trace {
                key: account.key().clone(),
                method: detail.method,
                path: detail.path,
                status: self.status,
                trace: detail.trace,
                tries: self.tries,
                way: self.way,
                outcome,
            });
        }
    }

    /// Puts it into the answer whose end it waits for.
    pub fn follow(mut self: Box<Self>, answer: &mut Response<AnswerBody>) {
        let Some(account) = &self.account else {
            // The agent's own answer.
            return;
        };
        self.status = answer.status().as_u16();
        account.begun();
        if account.book().tells_clients()
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
            Phase::Replying { is_stream: false } => {
                let write = self.is_whole().then(|| self.client.last_write());
                self.replied(write.flatten(), HeldUp::default());
            }
            _ => {
                if let Some(account) = self.account.as_ref().filter(|_| self.status != 0) {
                    account.never_ended();
                }
            }
        }
        if let Some(upstream) = &self.upstream {
            upstream.end();
        }
    }
}
