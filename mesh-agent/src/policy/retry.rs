//! Whether what became of a try is worth another.

use std::time::Duration;

use super::backoff::Backoff;

/// The statuses of gRPC that a condition can name, by their number (`status.proto`).
pub const GRPC_STATUSES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

/// One condition for a further try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryCondition {
    /// No connection came about: the server has seen nothing.
    ConnectFailure,
    /// The server says that it has not begun with the request.
    RefusedStream,
    /// The connection or the stream ended before an answer began.
    Reset,
    /// No answer began in the time for one try.
    PerTryTimeout,
    /// Any 5xx, or no answer at all.
    Any5xx,
    /// 502, 503 or 504.
    GatewayError,
    /// 409.
    Retriable4xx,
    /// This status.
    Status(u16),
    /// An answer with this header.
    Header(String),
    /// This status of gRPC, in headers or trailers.
    Grpc(u8),
}

impl RetryCondition {
    /// Reads a condition as the configuration spells it.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "connect-failure" => Self::ConnectFailure,
            "refused-stream" => Self::RefusedStream,
            "reset" => Self::Reset,
            "per-try-timeout" => Self::PerTryTimeout,
            "5xx" => Self::Any5xx,
            "gateway-error" => Self::GatewayError,
            "retriable-4xx" => Self::Retriable4xx,
            _ => return Self::parse_valued(text),
        })
    }

    fn parse_valued(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("header:") {
            let is_name = !name.is_empty() && name.bytes().all(super::detection::is_token);
            return is_name.then(|| Self::Header(name.to_ascii_lowercase()));
        }
        if let Some(name) = text.strip_prefix("grpc-") {
            let number = GRPC_STATUSES.iter().position(|status| *status == name)?;
            return (number > 0).then_some(Self::Grpc(number as u8));
        }
        let is_status = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let status = text.parse().ok().filter(|_| is_status)?;
        (400..=599)
            .contains(&status)
            .then_some(Self::Status(status))
    }

    /// Whether this is what became of a try.
    pub fn is_met_by(&self, outcome: TryOutcome<'_>) -> bool {
        match outcome {
            TryOutcome::ConnectFailure => matches!(self, Self::ConnectFailure | Self::Any5xx),
            TryOutcome::RefusedStream => matches!(self, Self::RefusedStream | Self::Any5xx),
            TryOutcome::Reset => matches!(self, Self::Reset | Self::Any5xx),
            TryOutcome::PerTryTimeout => matches!(self, Self::PerTryTimeout | Self::Any5xx),
            TryOutcome::Answer {
                status,
                grpc_status,
                headers,
            } => match self {
                Self::Any5xx => (500..=599).contains(&status),
                Self::GatewayError => (502..=504).contains(&status),
                Self::Retriable4xx => status == 409,
                Self::Status(wanted) => *wanted == status,
                Self::Header(name) => headers.has_header(name),
                Self::Grpc(wanted) => grpc_status == Some(*wanted),
                Self::ConnectFailure | Self::RefusedStream | Self::Reset | Self::PerTryTimeout => {
                    false
                }
            },
        }
    }
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryOutcome<'a> {
    /// No connection came about.
    ConnectFailure,
    /// The server has not begun with the request: REFUSED_STREAM, or a stream above GOAWAY's last.
    RefusedStream,
    /// The connection or the stream ended before an answer began.
    Reset,
    /// No answer began in the time for one try.
    PerTryTimeout,
    /// An answer.
    Answer {
        /// Its HTTP status.
        status: u16,
        /// Its gRPC status, if it has one already.
        grpc_status: Option<u8>,
        /// Whether it has a header.
        headers: &'a dyn HasHeader,
    },
}

/// Answers that can be asked for their headers.
pub trait HasHeader: std::fmt::Debug {
    /// Whether there is one of this name, in lower case.
    fn has_header(&self, name: &str) -> bool;
}

impl PartialEq for dyn HasHeader + '_ {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self, other)
    }
}

impl Eq for dyn HasHeader + '_ {}

/// What matters of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeatable {
    /// Its method says that doing it twice is as doing it once (RFC 9110, 9.2.2).
    pub is_idempotent: bool,
    /// Its body is still there as a whole, or there is none.
    pub has_body: bool,
}

/// What the server asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing.
    #[default]
    None,
    /// Another try after exactly this time.
    After(Duration),
    /// No other try.
    Never,
}

impl Pushback {
    /// Reads `grpc-retry-pushback-ms`: what is negative or cannot be read means never (gRFC A6).
    pub fn parse_grpc(text: &[u8]) -> Self {
        let is_number = (1..=9).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
        let number = is_number.then(|| str::from_utf8(text).ok()?.parse().ok());
        let number = number.flatten().map(Duration::from_millis);
        number.map_or(Self::Never, Self::After)
    }
}

/// When to try again, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Tries besides the first.
    pub attempts: u32,
    /// Any of these.
    pub on: Vec<RetryCondition>,
    /// Also requests whose method does not say that they can be repeated.
    pub all_methods: bool,
    /// Waits between tries.
    pub backoff: Backoff,
}

/// Why there is no further try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoRetry {
    /// No condition has it.
    NotListed,
    /// Its method does not say that it can be repeated.
    NotRepeatable,
    /// Its body is too long to be kept.
    BodyGone,
    /// As many as the policy allows were made.
    AttemptsUsed,
    /// The server asked for none.
    PushedBack,
    /// The deadline would come first.
    NoTime,
}

/// Longest wait that a server may ask for where no deadline bounds it.
const LONGEST_PUSHBACK: Duration = Duration::from_secs(10);

impl RetryPolicy {
    /// How long to wait before the next try, or why there is none. `further` tries besides the first
    /// were made; `left` is left of the request's deadline; `random` is uniform in 0..1.
    pub fn next(
        &self,
        outcome: TryOutcome<'_>,
        request: Repeatable,
        further: u32,
        pushback: Pushback,
        left: Option<Duration>,
        random: f64,
    ) -> Result<Duration, NoRetry> {
        let condition = self
            .on
            .iter()
            .find(|condition| condition.is_met_by(outcome));
        let condition = condition.ok_or(NoRetry::NotListed)?;
        let is_untouched = matches!(
            outcome,
            TryOutcome::ConnectFailure | TryOutcome::RefusedStream
        );
        // To name a gRPC status is to say that such calls may be repeated: all of them are POST.
        let may_repeat = self.all_methods
            || request.is_idempotent
            || is_untouched
            || matches!(condition, RetryCondition::Grpc(_));
        if !may_repeat {
            return Err(NoRetry::NotRepeatable);
        }
        if !request.has_body {
            return Err(NoRetry::BodyGone);
        }
        if further >= self.attempts {
            return Err(NoRetry::AttemptsUsed);
        }
        let wait = match pushback {
            Pushback::Never => return Err(NoRetry::PushedBack),
            Pushback::After(wait) if wait > left.unwrap_or(LONGEST_PUSHBACK) => {
                return Err(NoRetry::PushedBack);
            }
            Pushback::After(wait) => wait,
            Pushback::None => self.backoff.wait(further + 1, random),
        };
        if left.is_some_and(|left| wait >= left) {
            return Err(NoRetry::NoTime);
        }
        Ok(wait)
    }

    /// Whether trailers can hold what a condition waits for.
    pub fn looks_at_trailers(&self) -> bool {
        self.on
            .iter()
            .any(|condition| matches!(condition, RetryCondition::Grpc(_)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Headers(&'static [&'static str]);

    impl HasHeader for Headers {
        fn has_header(&self, name: &str) -> bool {
            self.0.contains(&name)
        }
    }

    const SAFE: Repeatable = Repeatable {
        is_idempotent: true,
        has_body: true,
    };
    const UNSAFE: Repeatable = Repeatable {
        is_idempotent: false,
        has_body: true,
    };

    fn policy(on: &[&str]) -> RetryPolicy {
        RetryPolicy {
            attempts: 2,
            on: on
                .iter()
                .map(|text| RetryCondition::parse(text).unwrap())
                .collect(),
            all_methods: false,
            backoff: Backoff {
                base: Duration::from_millis(25),
                max: Duration::from_millis(250),
            },
        }
    }

    fn answer(status: u16, grpc_status: Option<u8>) -> TryOutcome<'static> {
        TryOutcome::Answer {
            status,
            grpc_status,
            headers: &Headers(&["x-again"]),
        }
    }

    fn next(
        on: &[&str],
        outcome: TryOutcome<'_>,
        request: Repeatable,
    ) -> Result<Duration, NoRetry> {
        policy(on).next(outcome, request, 0, Pushback::None, None, 1.0)
    }

    #[test]
    fn conditions_are_spelled_as_in_envoy() {
        for good in [
            "5xx",
            "503",
            "409",
            "grpc-unavailable",
            "header:X-Again",
            "reset",
        ] {
            assert!(RetryCondition::parse(good).is_some(), "{good}");
        }
        for wrong in [
            "",
            "200",
            "600",
            "5XX",
            "grpc-ok",
            "grpc-",
            "header:",
            "header:a b",
            "+503",
        ] {
            assert!(RetryCondition::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn each_condition_has_its_outcomes() {
        use TryOutcome as Is;
        let cases: [(&str, &[TryOutcome<'_>], &[TryOutcome<'_>]); 9] = [
            (
                "connect-failure",
                &[Is::ConnectFailure],
                &[Is::Reset, Is::RefusedStream],
            ),
            ("refused-stream", &[Is::RefusedStream], &[Is::Reset]),
            (
                "reset",
                &[Is::Reset],
                &[Is::ConnectFailure, Is::PerTryTimeout],
            ),
            ("per-try-timeout", &[Is::PerTryTimeout], &[Is::Reset]),
            (
                "5xx",
                &[
                    answer(500, None),
                    answer(599, None),
                    Is::Reset,
                    Is::ConnectFailure,
                ],
                &[answer(499, None), answer(200, Some(14))],
            ),
            (
                "gateway-error",
                &[answer(502, None), answer(504, None)],
                &[answer(500, None)],
            ),
            ("retriable-4xx", &[answer(409, None)], &[answer(404, None)]),
            ("header:X-AGAIN", &[answer(200, None)], &[Is::Reset]),
            (
                "grpc-unavailable",
                &[answer(200, Some(14))],
                &[answer(200, Some(13))],
            ),
        ];
        for (on, yes, no) in cases {
            for outcome in yes {
                assert!(next(&[on], *outcome, SAFE).is_ok(), "{on} {outcome:?}");
            }
            for outcome in no {
                let refused = Err(NoRetry::NotListed);
                assert_eq!(next(&[on], *outcome, SAFE), refused, "{on} {outcome:?}");
            }
        }
    }

    #[test]
    fn what_may_have_been_done_is_not_done_twice() {
        let on = ["5xx", "grpc-unavailable"];
        for outcome in [
            answer(503, None),
            TryOutcome::Reset,
            TryOutcome::PerTryTimeout,
        ] {
            assert_eq!(next(&on, outcome, UNSAFE), Err(NoRetry::NotRepeatable));
        }
        for outcome in [
            TryOutcome::ConnectFailure,
            TryOutcome::RefusedStream,
            answer(200, Some(14)),
        ] {
            assert!(next(&on, outcome, UNSAFE).is_ok(), "{outcome:?}");
        }
    }

    #[test]
    fn pushback_is_followed_to_the_millisecond_or_not_at_all() {
        let ms = Duration::from_millis;
        let policy = policy(&["grpc-unavailable"]);
        let next =
            |pushback, left| policy.next(answer(200, Some(14)), UNSAFE, 0, pushback, left, 1.0);
        assert_eq!(next(Pushback::parse_grpc(b"400"), None), Ok(ms(400)));
        for never in ["-1", "", "soon", "1.5", "99999999999"] {
            let pushback = Pushback::parse_grpc(never.as_bytes());
            assert_eq!(next(pushback, None), Err(NoRetry::PushedBack), "{never}");
        }
        assert_eq!(
            next(Pushback::After(ms(400)), Some(ms(300))),
            Err(NoRetry::PushedBack)
        );
        assert_eq!(
            next(Pushback::After(ms(20_000)), None),
            Err(NoRetry::PushedBack)
        );
        assert_eq!(next(Pushback::None, Some(ms(20))), Err(NoRetry::NoTime));
    }

    proptest! {
        #[test]
        fn there_are_never_more_tries_than_allowed(
            attempts in 0..6_u32,
            further in 0..12_u32,
            status in 400..600_u16,
            random in 0.0..1.0_f64,
        ) {
            let policy = RetryPolicy { attempts, ..policy(&["5xx"]) };
            let next = policy.next(answer(status, None), SAFE, further, Pushback::None, None, random);
            prop_assert_eq!(next.is_ok(), status >= 500 && further < attempts);
            prop_assert!(next.is_err() || next.unwrap() <= policy.backoff.max);
        }
    }
}
