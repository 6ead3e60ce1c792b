//! Deadlines in headers: what a caller has left, and what is left for the server.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    policy::deadline::{Deadline, grpc_timeout, parse_grpc_timeout, parse_milliseconds},
    proxy::destinations::Policy,
};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The nearer of what is configured, from `now` on, and what the caller had left when it `begun`.
pub fn of(
    headers: &HeaderMap,
    policy: &Policy,
    is_grpc: bool,
    begun: Instant,
    now: Instant,
) -> Deadline {
    let of_call = is_grpc
        .then(|| parse_grpc_timeout(headers.get(GRPC_TIMEOUT)?.as_bytes()))
        .flatten();
    let of_caller = headers
        .get(&policy.timeout_header)
        .and_then(|value| parse_milliseconds(value.as_bytes()));
    Deadline::NONE
        .within(policy.request, now)
        .within(of_call, begun)
        .within(of_caller, begun)
}

/// Tells the server what is left.
pub fn pass_on(headers: &mut HeaderMap, policy: &Policy, is_grpc: bool, left: Option<Duration>) {
    let Some(left) = left else {
        return;
    };
    if is_grpc && let Ok(value) = HeaderValue::from_str(&grpc_timeout(left)) {
        headers.insert(GRPC_TIMEOUT, value);
    }
    // Zero would mean that there is no limit.
    let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    headers.insert(policy.timeout_header.clone(), milliseconds.into());
}
