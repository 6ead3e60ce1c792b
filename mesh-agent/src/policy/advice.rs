//! What a policy for a destination could be, by what was seen of it.

use std::time::Duration;

/// What was seen of a destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Requests.
    pub requests: u64,
    /// Of those, that failed: a 5xx, or no answer.
    pub failed: u64,
    /// What half of the answers took at most.
    pub p50: Duration,
    /// What 99% of them took at most.
    pub p99: Duration,
    /// What 99.9% of them took at most.
    pub p999: Duration,
    /// Requests that were under way at once, at most.
    pub most_active: u32,
    /// For how long.
    pub over: Duration,
}

/// Fewer requests say nothing of the slowest ones.
pub const FEWEST: u64 = 1000;

/// Values for a policy, each with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// `timeouts.perTry`
    pub per_try: (Duration, String),
    /// `timeouts.request`
    pub request: (Duration, String),
    /// `retries.attempts`
    pub attempts: (u32, String),
    /// `breaker.failureRatio`
    pub failure_ratio: (f64, String),
    /// `breaker.slowCall.threshold`
    pub slow: (Duration, String),
    /// `breaker.minimumCalls`
    pub minimum_calls: (u32, String),
    /// `limits.requests`
    pub requests: (u32, String),
}

/// What to write, by what was `seen`; `None` if that is too little.
pub fn advise(seen: &Seen) -> Option<Advice> {
    if seen.requests < FEWEST {
        return None;
    }
    let failed = seen.failed as f64 / seen.requests as f64;
    let rate = seen.requests as f64 / seen.over.as_secs_f64().max(1.0);
    let per_try = round_up(seen.p999.max(seen.p50 * 3) * 2);
    let attempts = if failed > 0.2 { 0 } else { 2 };
    let request = round_up(per_try * (attempts + 1) + Duration::from_millis(500) * attempts);
    let failure_ratio = ((failed * 5.0).clamp(0.5, 0.9) * 20.0).round() / 20.0;
    let in_window = rate * WINDOW.as_secs_f64();
    Some(Advice {
        per_try: (
            per_try,
            format!(
                "twice what 99.9% of the answers took ({}): one in a thousand is given up only when something is wrong",
                text(seen.p999)
            ),
        ),
        request: (
            request,
            format!("{} of these, and the waits between them", attempts + 1),
        ),
        attempts: (
            attempts,
            if attempts == 0 {
                format!("{} failed: trying again would add to it", percent(failed))
            } else {
                format!("{} failed, so that few are tried again", percent(failed))
            },
        ),
        failure_ratio: (
            failure_ratio,
            format!("{} failed: it opens when that is far more", percent(failed)),
        ),
        slow: (
            round_up(seen.p99 * 2),
            format!("twice what 99% of the answers took ({})", text(seen.p99)),
        ),
        minimum_calls: (
            // At the rate that was seen, a breaker could not open before it is long too late.
            (in_window / 10.0).clamp(5.0, 100.0) as u32,
            format!("there are about {in_window:.0} calls in 30 s"),
        ),
        requests: (
            (seen.most_active * 2).max(10),
            format!(
                "twice what was under way at once, {} at most",
                seen.most_active
            ),
        ),
    })
}

/// The default of `breaker.window`.
const WINDOW: Duration = Duration::from_secs(30);

/// To one or two digits, so that nobody takes it for more exact than it is.
fn round_up(time: Duration) -> Duration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1) + 1;
    let unit = match millis {
        0..=20 => 1,
        21..=200 => 10,
        201..=2_000 => 50,
        2_001..=10_000 => 500,
        _ => 1_000,
    };
    Duration::from_millis(millis.div_ceil(unit) * unit)
}

fn text(time: Duration) -> String {
    format!("{time:.1?}")
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    const SEEN: Seen = Seen {
        requests: 100_000,
        failed: 200,
        p50: Duration::from_millis(4),
        p99: Duration::from_millis(22),
        p999: Duration::from_millis(81),
        most_active: 37,
        over: Duration::from_hours(1),
    };

    #[test]
    fn an_ordinary_destination() {
        let advice = advise(&SEEN).unwrap();
        assert_eq!(advice.per_try.0, 170 * MS);
        assert_eq!(advice.slow.0, 50 * MS);
        assert_eq!(advice.attempts.0, 2);
        assert_eq!(advice.request.0, 1550 * MS);
        assert!((advice.failure_ratio.0 - 0.5).abs() < 1e-9);
        assert_eq!(advice.requests.0, 74);
        assert_eq!(
            advise(&Seen {
                requests: FEWEST - 1,
                ..SEEN
            }),
            None
        );
    }

    #[test]
    fn one_that_fails_often_is_not_tried_again() {
        let advice = advise(&Seen {
            failed: 30_000,
            ..SEEN
        })
        .unwrap();
        assert_eq!(advice.attempts.0, 0);
        assert!(advice.failure_ratio.0 > 0.8);
    }

    proptest! {
        /// Nothing that was seen would be given up, and requests outlast their tries.
        #[test]
        fn times_are_longer_than_what_was_seen(
            p50 in 0..10_000_000_u64, more in 0..10_000_000_u64, still in 0..10_000_000_u64,
        ) {
            let micros = Duration::from_micros;
            let seen = Seen {
                p50: micros(p50),
                p99: micros(p50 + more),
                p999: micros(p50 + more + still),
                ..SEEN
            };
            let advice = advise(&seen).unwrap();
            prop_assert!(advice.per_try.0 > seen.p999);
            prop_assert!(advice.slow.0 > seen.p99);
            prop_assert!(advice.request.0 >= advice.per_try.0 * 3);
        }
    }
}
