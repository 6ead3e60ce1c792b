//! A request as the access log and traces will have it, once its answer has ended.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;

use super::{
    body::{AnswerBody, BoxError},
    headers,
    reason::{REASON, Reason},
    running::grpc_status,
    session::Session,
};
use crate::{
    policy::trace_context::{Caller, traceparent},
    telemetry::{Exchanged, Span, Telemetry},
};

/// Longest path that is told, in bytes.
const LONGEST_PATH: usize = 1024;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");

/// A request under way. It is told of when this is dropped.
pub struct Observed {
    telemetry: Arc<Telemetry>,
    begun: Instant,
    exchanged: Option<Box<Exchanged>>,
}

impl Observed {
    /// A request begins; `None` if nobody wants to know. Gives the request its place in a trace.
    pub fn begin<B>(
        session: &Session,
        destination: &Arc<str>,
        request: &mut Request<B>,
    ) -> Option<Box<Self>> {
        let telemetry = &session.pod.telemetry;
        if !telemetry.is_on() {
            return None;
        }
        let path = request.uri().path();
        let path = path.get(..LONGEST_PATH).unwrap_or(path).into();
        let host = headers::host(request);
        Some(Box::new(Self {
            telemetry: Arc::clone(telemetry),
            begun: Instant::now(),
            exchanged: Some(Box::new(Exchanged {
                begun: SystemTime::now(),
                took: Duration::ZERO,
                pod: Arc::clone(&session.pod_name),
                is_inbound: session.is_inbound(),
                client: session.client,
                destination: Arc::clone(destination),
                endpoint: None,
                tries: 0,
                version: request.version(),
                method: request.method().clone(),
                path,
                host,
                status: StatusCode::OK,
                grpc_status: None,
                reason: None,
                bytes: 0,
                is_whole: false,
                span: telemetry
                    .sample()
                    .map(|sample| take_part(request.headers_mut(), sample, telemetry)),
            })),
        }))
    }

    /// One that was refused before it could be read.
    pub fn refused<B>(
        session: &Session,
        destination: &Arc<str>,
        request: &Request<B>,
        reason: Reason,
        answer: &mut Response<AnswerBody>,
    ) {
        // What stands for it says nothing of it.
        let mut unknown = Request::new(());
        *unknown.version_mut() = request.version();
        *unknown.method_mut() = Method::from_bytes(b"-").unwrap_or_default();
        if let Some(mut observed) = Self::begin(session, destination, &mut unknown) {
            if let Some(exchanged) = &mut observed.exchanged {
                exchanged.path = "-".into();
                exchanged.reason = Some(reason.code());
            }
            observed.answered(None, 0, answer);
        }
    }

    /// It is answered: the rest is seen in the answer's body.
    pub fn answered(
        mut self: Box<Self>,
        endpoint: Option<SocketAddr>,
        tries: u32,
        answer: &mut Response<AnswerBody>,
    ) {
        if let Some(exchanged) = &mut self.exchanged {
            exchanged.endpoint = endpoint;
            exchanged.tries = tries;
            exchanged.status = answer.status();
            exchanged.grpc_status = grpc_status(answer.headers());
            let reasons = Reason::ALL.iter().map(|reason| reason.code());
            let reason = answer.headers().get(REASON);
            let mut reasons = reasons.filter(|code| reason.is_some_and(|it| it == code));
            // A server's own header of that name may say anything.
            exchanged.reason = exchanged.reason.or_else(|| reasons.next());
        }
        answer.body_mut().observe(self);
    }

    /// What comes of the answer's body. `is_last`: nothing comes after it.
    pub fn saw(&mut self, frame: Option<&Result<Frame<Bytes>, BoxError>>, is_last: bool) {
        let Some(exchanged) = &mut self.exchanged else {
            return;
        };
        match frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    exchanged.bytes += bytes.len() as u64;
                } else if let Some(trailers) = frame.trailers_ref() {
                    exchanged.grpc_status = exchanged.grpc_status.or(grpc_status(trailers));
                }
                exchanged.is_whole |= is_last;
            }
            Some(Err(_)) => exchanged.is_whole = false,
            None => exchanged.is_whole = true,
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if let Some(mut exchanged) = self.exchanged.take() {
            exchanged.took = self.begun.elapsed();
            self.telemetry.tell(exchanged);
        }
    }
}

/// Gives a request with these headers its place: in the trace that its caller names, or a new one, of
/// which the share `sample` is kept.
fn take_part(headers: &mut HeaderMap, sample: f64, telemetry: &Telemetry) -> Span {
    let Some((caller, carrier)) = caller(headers) else {
        let span = Span {
            trace: rand::random(),
            id: rand::random(),
            parent: None,
            is_sampled: rand::random::<f64>() < sample,
        };
        carry(headers, Carrier::TraceParent, span);
        return span;
    };
    let span = Span {
        trace: caller.trace,
        id: rand::random(),
        parent: Some(caller.span),
        is_sampled: caller.is_sampled,
    };
    // A span that nobody gets to know would be a gap in the trace.
    if span.is_sampled && telemetry.exports_spans() {
        carry(headers, carrier, span);
    }
    span
}

/// The headers that say where a request stands.
#[derive(Clone, Copy)]
enum Carrier {
    TraceParent,
    B3,
    B3Parts,
}

/// Which trace a request with these headers belongs to, if it does to any.
pub(super) fn trace_of(headers: &HeaderMap) -> Option<Caller> {
    caller(headers).map(|(caller, _)| caller)
}

fn caller(headers: &HeaderMap) -> Option<(Caller, Carrier)> {
    let get = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    if let Some(caller) = get(&TRACEPARENT).and_then(Caller::of_traceparent) {
        return Some((caller, Carrier::TraceParent));
    }
    if let Some(caller) = get(&B3).and_then(Caller::of_b3) {
        return Some((caller, Carrier::B3));
    }
    let (trace, span) = (get(&B3_TRACE)?, get(&B3_SPAN)?);
    let caller = Caller::of_b3_parts(trace, span, get(&B3_SAMPLED))?;
    Some((caller, Carrier::B3Parts))
}

fn carry(headers: &mut HeaderMap, carrier: Carrier, span: Span) {
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    let Span { trace, id, .. } = span;
    match carrier {
        Carrier::TraceParent => {
            let caller = Caller {
                trace,
                span: id,
                is_sampled: span.is_sampled,
            };
            set(TRACEPARENT, traceparent(caller));
        }
        Carrier::B3 => {
            let parent = span.parent.map(|parent| format!("-{parent:016x}"));
            let parent = parent.unwrap_or_default();
            set(B3, format!("{trace:032x}-{id:016x}-1{parent}"));
        }
        Carrier::B3Parts => {
            set(B3_SPAN, format!("{id:016x}"));
            if let Some(parent) = span.parent {
                set(B3_PARENT, format!("{parent:016x}"));
            }
        }
    }
}
