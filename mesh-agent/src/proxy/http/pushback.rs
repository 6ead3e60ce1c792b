//! What a server says about when to try again.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

use super::retry_mark::NO_RETRY;
use crate::policy::retry::Pushback;

/// Reads the mark, `grpc-retry-pushback-ms` and `Retry-After` (RFC 9110, 10.2.3: seconds or a date).
pub fn pushback(headers: &HeaderMap) -> Pushback {
    if headers.contains_key(NO_RETRY) {
        return Pushback::Never;
    }
    if let Some(value) = headers.get("grpc-retry-pushback-ms") {
        return Pushback::parse_grpc(value.as_bytes());
    }
    let value = headers.get(header::RETRY_AFTER);
    let Some(value) = value.and_then(|value| value.to_str().ok()) else {
        return Pushback::None;
    };
    if let Ok(seconds) = value.parse() {
        return Pushback::After(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(value).map_or(Pushback::None, |date| {
        let left = date.duration_since(SystemTime::now());
        Pushback::After(left.unwrap_or_default())
    })
}
