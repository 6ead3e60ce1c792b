//! Answers to requests that are not let through.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::proxy::protection::Refusal;

/// What draft-ietf-httpapi-ratelimit-headers called them up to its version 7, which is what clients read.
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Says in `headers` when a request may come again, as far as that is known.
pub fn describe(refusal: &Refusal, headers: &mut HeaderMap) {
    if let Some(after) = refusal.retry_after {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(seconds(after).max(1)),
        );
    }
    if let Some(quota) = &refusal.quota {
        headers.insert(LIMIT, HeaderValue::from(quota.limit));
        headers.insert(REMAINING, HeaderValue::from(quota.remaining));
        headers.insert(RESET, HeaderValue::from(seconds(quota.reset)));
    }
}

/// Whole seconds, rounded up: who comes back then must not be too early.
const fn seconds(time: Duration) -> u64 {
    time.as_secs() + (time.subsec_nanos() > 0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::rate_limit::Quota, proxy::Reason};

    #[test]
    fn times_are_whole_seconds_and_never_too_early() {
        let mut headers = HeaderMap::new();
        let refusal = Refusal {
            reason: Reason::RateLimited,
            retry_after: Some(Duration::from_millis(1)),
            quota: Some(Quota {
                limit: 10,
                remaining: 0,
                reset: Duration::from_millis(2_001),
            }),
        };
        describe(&refusal, &mut headers);
        let get = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
        assert_eq!(get("retry-after"), Some("1"));
        assert_eq!(get("ratelimit-limit"), Some("10"));
        assert_eq!(get("ratelimit-remaining"), Some("0"));
        assert_eq!(get("ratelimit-reset"), Some("3"));
    }
}
