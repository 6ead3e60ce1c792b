//! The bodies of answers, as they go to the client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::SendStream;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{
    half_close::Underway,
    hearing::Hearing,
    http2::{Received, Sending},
    measured::Measured,
    observed::Observed,
    reason::Reason,
    request_body::TryBody,
    try_guard::TryGuard,
    upstream::{http1, http2},
};
use crate::{
    latency::{Nanos, StampedStream},
    policy::deadline::Deadline,
    proxy::timer::Timer,
};

/// What bodies fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: a server's, with all that ends when it does, or the agent's own.
pub struct AnswerBody {
    source: Source,
    /// What was read ahead.
    first: Option<Frame<Bytes>>,
    limits: Option<Limits>,
    /// A call of gRPC is told in its trailers that it ran out of time.
    is_grpc: bool,
    guard: Option<TryGuard>,
    observed: Option<Box<Observed>>,
    measured: Option<Box<Measured>>,
    underway: Option<Underway>,
    /// It has failed, which is not told yet.
    failed: Option<BoxError>,
}

enum Source {
    None,
    Own(Bytes),
    Http1(http1::Answer),
    Http2(http2::Answer),
}

/// Until when the body must go on.
struct Limits {
    deadline: Deadline,
    idle: Duration,
    timer: Option<Timer>,
    /// The timer stands for the present wait.
    is_armed: bool,
}

impl AnswerBody {
    /// No bytes at all.
    pub const fn empty() -> Self {
        Self::new(Source::None)
    }

    /// These bytes.
    pub const fn of(bytes: Bytes) -> Self {
        Self::new(Source::Own(bytes))
    }

    /// What comes over a connection that nobody else uses.
    pub fn http1(answer: http1::Answer) -> Self {
        Self::new(Source::Http1(answer))
    }

    /// What comes over a stream.
    pub fn http2(answer: http2::Answer) -> Self {
        Self::new(Source::Http2(answer))
    }

    const fn new(source: Source) -> Self {
        Self {
            source,
            first: None,
            limits: None,
            is_grpc: false,
            guard: None,
            observed: None,
            measured: None,
            underway: None,
            failed: None,
        }
    }

    /// The same, which ends with an error when it has not ended at `deadline` or when nothing comes for
    /// `idle`, and keeps `guard` for as long as it lives.
    pub fn bounded(
        self,
        deadline: Deadline,
        idle: Duration,
        is_grpc: bool,
        guard: TryGuard,
    ) -> Self {
        let limits = Limits {
            deadline,
            idle,
            timer: None,
            is_armed: false,
        };
        Self {
            limits: Some(limits),
            is_grpc,
            guard: Some(guard),
            ..self
        }
    }

    /// Keeps this for as long as it lives.
    pub fn keep(&mut self, underway: Underway) {
        self.underway = Some(underway);
    }

    /// `observed` sees what comes of it.
    pub fn observe(&mut self, mut observed: Box<Observed>) {
        if self.is_end_stream() {
            observed.saw(None, true);
        }
        self.observed = Some(observed);
    }

    /// `measured` is told when it has ended.
    pub fn measure(&mut self, measured: Box<Measured>) {
        if self.is_end_stream() {
            measured.ended();
        } else {
            self.measured = Some(measured);
        }
    }

    /// What can be heard of the connection that the answer comes over, and since when there was one, if that
    /// is measured.
    pub fn hearing(&self) -> Option<(Hearing, Option<Nanos>)> {
        match &self.source {
            Source::Http1(answer) => answer.hearing(),
            Source::Http2(answer) => answer.hearing(),
            _ => None,
        }
    }

    /// How long the server and the network took until the answer began, by packet timestamps.
    pub fn server_time(&self) -> Option<Duration> {
        let (hearing, _) = self.hearing()?;
        hearing.away()
    }

    /// The connection that the answer came over, once the server switched protocols.
    pub async fn into_tunnel(self) -> Option<(StampedStream, Bytes)> {
        match self.source {
            Source::Http1(answer) => answer.into_tunnel().await,
            _ => None,
        }
    }

    /// The stream that the answer came over, once the server made a tunnel of it.
    pub fn into_stream(self) -> Option<(SendStream<Bytes>, Received)> {
        match self.source {
            Source::Http2(answer) => answer.into_tunnel(),
            _ => None,
        }
    }

    /// Whether it is the agent's own.
    pub const fn is_own(&self) -> bool {
        matches!(self.source, Source::None | Source::Own(_))
    }

    /// Sends more of the request: its server may want that before there is more of the answer.
    pub fn poll_request(&mut self, context: &mut Context<'_>) {
        if let Source::Http2(answer) = &mut self.source {
            answer.poll_request(context);
        }
    }

    /// What is left of the request.
    pub fn take_request(&mut self) -> Option<Box<Sending<TryBody>>> {
        match &mut self.source {
            Source::Http2(answer) => answer.take_request(),
            _ => None,
        }
    }

    /// Reads the first frame ahead. `None` at the end.
    pub async fn read_ahead(&mut self) -> Option<Result<&Frame<Bytes>, BoxError>> {
        use http_body_util::BodyExt as _;
        match self.frame().await? {
            Ok(frame) => Some(Ok(self.first.insert(frame))),
            Err(error) => Some(Err(error)),
        }
    }
}

impl AnswerBody {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let polled = match &mut this.source {
            Source::None => return Poll::Ready(None),
            Source::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                let frame = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
                return Poll::Ready(frame);
            }
            Source::Http1(answer) => answer.poll_frame(context),
            Source::Http2(answer) => answer.poll_frame(context),
        };
        let Some(limits) = &mut this.limits else {
            return polled;
        };
        if polled.is_ready() {
            limits.is_armed = false;
            return polled;
        }
        if limits.poll_expired(context).is_pending() {
            return Poll::Pending;
        }
        // Closes the connection or resets the stream to the server.
        this.source = Source::None;
        this.measured = None;
        Poll::Ready(Some(if this.is_grpc {
            Ok(Frame::trailers(Reason::RequestTimeout.trailers()))
        } else {
            Err("the answer took too long".into())
        }))
    }
}

impl AnswerBody {
    /// Whether `frame` is the last.
    fn is_end_stream_after(&self, frame: Option<&Result<Frame<Bytes>, BoxError>>) -> bool {
        match frame {
            Some(Ok(frame)) => frame.is_trailers() || self.is_end_stream(),
            Some(Err(_)) | None => true,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(self.poll(context));
        if let Some(guard) = &mut self.guard {
            guard.saw(frame.as_ref());
        }
        if let Some(mut observed) = self.observed.take() {
            let is_last = self.is_end_stream();
            observed.saw(frame.as_ref(), is_last);
            self.observed = Some(observed);
        }
        if self.measured.is_some() && self.is_end_stream_after(frame.as_ref()) {
            let measured = self.measured.take();
            if let Some(measured) = measured.filter(|_| !matches!(frame, Some(Err(_)))) {
                measured.ended();
            }
        }
        if let Some(Err(error)) = frame {
            // The library throws away what it has not written then, such as the answer's head: it writes that now.
            self.failed = Some(error);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none()
            && self.failed.is_none()
            && match &self.source {
                Source::None => true,
                Source::Own(bytes) => bytes.is_empty(),
                Source::Http1(answer) => answer.is_end_stream(),
                Source::Http2(answer) => answer.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_some() {
            return SizeHint::default();
        }
        match &self.source {
            Source::None => SizeHint::with_exact(0),
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1(answer) => answer.size_hint(),
            // Its headers say it, if anything does.
            Source::Http2(_) => SizeHint::default(),
        }
    }
}

impl Limits {
    /// Called while nothing comes.
    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_armed {
            let until = Instant::now() + self.idle;
            let until = self.deadline.at().map_or(until, |at| until.min(at.into()));
            let timer = self.timer.get_or_insert_with(|| Timer::new(until));
            timer.reset(until);
            self.is_armed = true;
        }
        let timer = self.timer.as_mut();
        timer.map_or(Poll::Pending, |timer| timer.poll(context))
    }
}

impl Reason {
    /// The end of a gRPC call whose answer has begun.
    fn trailers(self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(self.grpc_status()));
        trailers.insert("grpc-message", HeaderValue::from_static(self.code()));
        trailers.insert(super::reason::REASON, HeaderValue::from_static(self.code()));
        trailers
    }
}
