//! The mark "failed, do not retry" in answers, and on its way from an app's failed call to its own answer.
//!
//! In a tree of services where each level tries again, the last one is asked (tries per level)^levels
//! times; so only the level next to a failure is to try again ("Handling Overload", Site Reliability
//! Engineering, 2016, "Deciding to Retry"). An app need not pass the mark on by itself: if it passes on
//! the identifier of the request that it works on, the agent knows which of its answers a failure led to.

use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::{
    reason::{REASON, is_grpc},
    session::Session,
};
use crate::policy::{
    balance::hash,
    trace_context::{of_b3, of_traceparent},
};

/// The header of answers that are not to be tried again at any level: what failed was tried again where
/// it failed, or was not allowed to be.
pub const NO_RETRY: HeaderName = HeaderName::from_static("x-mesh-no-retry");

/// gRPC's own word for it (gRFC A6): its clients understand it, too.
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Marks the answer to a request with these headers, if it is one that is not to be tried again:
/// because the agent `gave_up`, because a server says so, or, on the way out of a pod's server, because
/// a call failed so that the server made for this request.
pub fn set<B>(
    session: &Session,
    request: &HeaderMap,
    response: &mut Response<B>,
    gave_up: Option<&'static str>,
) {
    let is_marked = response.headers().contains_key(NO_RETRY);
    if session.is_inbound() {
        if !is_marked && has_failed(response) {
            let known = &session.pod.failed_for;
            let caused = identity(request).and_then(|it| known.take(it, Instant::now()));
            if caused.is_some() {
                mark(response, "caused");
            }
        }
        return;
    }
    match gave_up {
        Some(why) if !is_marked => mark(response, why),
        _ if !is_marked => return,
        _ => {}
    }
    if let Some(request) = identity(request) {
        session.pod.failed_for.add(request, (), Instant::now());
    }
}

fn mark<B>(response: &mut Response<B>, why: &'static str) {
    let is_call = is_grpc(response.headers());
    let headers = response.headers_mut();
    headers.insert(NO_RETRY, HeaderValue::from_static(why));
    if is_call && !headers.contains_key(GRPC_PUSHBACK) {
        headers.insert(GRPC_PUSHBACK, HeaderValue::from_static("-1"));
    }
}

/// Whether it is the answer of a server that could not do what it was asked.
fn has_failed<B>(response: &Response<B>) -> bool {
    let grpc_status = response.headers().get("grpc-status");
    response.status().is_server_error()
        || response.headers().contains_key(REASON)
        || grpc_status.is_some_and(|status| status != "0")
}

/// The request that this one belongs to, as far as services say so.
pub fn identity(headers: &HeaderMap) -> Option<u64> {
    let bytes = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let trace = bytes(&TRACEPARENT).and_then(of_traceparent);
    let trace = trace.or_else(|| bytes(&B3).and_then(of_b3));
    let request = trace.or_else(|| bytes(&B3_TRACE));
    let request = request.or_else(|| bytes(&REQUEST_ID));
    request.map(|request| hash(request, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn requests_are_known_by_what_services_pass_on() {
        let of = |lines: &[(&HeaderName, &'static str)]| {
            let line = |(name, value): &(&HeaderName, &'static str)| {
                ((*name).clone(), HeaderValue::from_static(value))
            };
            identity(&lines.iter().map(line).collect())
        };
        let expected = Some(hash(TRACE.as_bytes(), 0));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let other = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01";
        // The parent differs from call to call, the trace does not.
        assert_eq!(of(&[(&TRACEPARENT, parent), (&REQUEST_ID, "1")]), expected);
        assert_eq!(of(&[(&TRACEPARENT, other)]), expected);
        assert_eq!(
            of(&[(&B3, "4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111")]),
            expected
        );
        assert_eq!(of(&[(&B3_TRACE, TRACE)]), expected);
        assert_eq!(
            of(&[(&TRACEPARENT, "broken"), (&REQUEST_ID, TRACE)]),
            expected
        );
        assert_eq!(of(&[(&B3, "0")]), None);
    }
}
