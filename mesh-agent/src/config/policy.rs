//! What the agent does for the connections and requests to a destination.

mod breaker;
mod fallback;
mod limits;

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use breaker::{Breaker, CallWindow, Ejection, HalfOpenSteps, OpenSpans, SlowCall, Throttling};
pub use fallback::Fallback;
pub use limits::{
    AdaptiveRange, FollowRule, Limits, MOST_FOLLOW_RULES, Rate, RateAlgorithm, RateKey,
};

use super::values::{Timespan, default_if_null};
use crate::policy::{hedge::HedgeAfter, retry::RetryCondition};

/// What the agent does for the connections and requests to a destination. What is absent is off or
/// has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    /// Whether breaker and limits refuse requests, or only say which they would refuse.
    pub mode: Mode,
    /// Which time slow calls, adaptive timeouts, peak-EWMA balancing and hedging percentiles go by.
    pub measure: Measure,
    /// How long things may take.
    #[serde(deserialize_with = "default_if_null")]
    pub timeouts: Timeouts,
    /// When requests are tried again. Without it they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// How endpoints are picked.
    #[serde(deserialize_with = "default_if_null")]
    pub balance: Balance,
    /// What keeps failing servers from being asked.
    #[serde(deserialize_with = "default_if_null")]
    pub breaker: Breaker,
    /// How much may be asked of it.
    #[serde(deserialize_with = "default_if_null")]
    pub limits: Limits,
    /// What is answered instead of a refusal or a failure. Without it, that itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Which requests are refused last: `path:/PREFIX` or `header:NAME`.
    #[serde(deserialize_with = "default_if_null")]
    pub critical: Vec<String>,
    /// How endpoints are asked how they are. Without it they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Whether CONNECT requests are passed on, for servers that are forward proxies.
    pub allow_connect: bool,
}

/// Which time of a try counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Measure {
    /// All of it, as the agent's clock says.
    #[default]
    Total,
    /// Without what the agent itself took, as packet timestamps say: network and server.
    Server,
}

/// Whether a part of a policy acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// What it refuses is refused.
    #[default]
    Enforce,
    /// It decides, counts and logs, and lets the request through.
    Observe,
}

/// How endpoints are asked how they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: HealthCheckKind,
    /// Path that `http` asks for.
    #[serde(default = "HealthCheck::default_path")]
    #[schemars(regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// Service that `grpc` asks for; the server as a whole, if empty.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub service: String,
    /// From one check to the next.
    #[serde(default = "HealthCheck::default_interval")]
    pub interval: Timespan,
    /// How long one may take.
    #[serde(default = "HealthCheck::default_timeout")]
    pub timeout: Timespan,
    /// Instead of `rise` and `fall`: it is out while there was no good one for so long that φ, by how
    /// regularly there were good ones before, is at least this: 1 to 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0, max = 16.0))]
    pub phi: Option<f64>,
    /// So many good ones in a row for an endpoint to be in rotation again: at least 1.
    #[serde(default = "HealthCheck::default_rise")]
    #[schemars(range(min = 1))]
    pub rise: u32,
    /// So many bad ones in a row for it to be taken out: at least 1.
    #[serde(default = "HealthCheck::default_fall")]
    #[schemars(range(min = 1))]
    pub fall: u32,
}

impl HealthCheck {
    /// Smallest and largest `phi`.
    pub const PHI: RangeInclusive<f64> = 1.0..=16.0;
    /// Longest `service`, in bytes.
    pub const MAX_SERVICE: usize = 100;

    fn default_path() -> String {
        "/".to_owned()
    }

    const fn default_interval() -> Timespan {
        Timespan::from_secs(2)
    }

    const fn default_timeout() -> Timespan {
        Timespan::from_secs(1)
    }

    const fn default_rise() -> u32 {
        2
    }

    const fn default_fall() -> u32 {
        3
    }
}

/// What a health check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HealthCheckKind {
    /// To accept a connection.
    Tcp,
    /// For a path: 2xx and 3xx are good.
    Http,
    /// gRPC's own health service.
    Grpc,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Timeouts {
    /// A connection to come about.
    pub connect: Timespan,
    /// A request with all its tries, from its first byte to the answer's last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Timespan>,
    /// One try, until its answer begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Timespan>,
    /// A kept connection without a request, and a request or an answer that does not move.
    pub idle: Timespan,
    /// A time-out for one try that follows the average of response times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// Header of requests that says how many milliseconds their caller has left.
    #[schemars(regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"))]
    pub header: String,
}

impl Timeouts {
    /// Shortest and longest of them all.
    pub const RANGE: RangeInclusive<Timespan> =
        Timespan::from_millis(1)..=Timespan::from_secs(24 * 60 * 60);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Timespan::from_secs(5),
            request: None,
            per_try: None,
            idle: Timespan::from_secs(300),
            adaptive: None,
            header: "x-envoy-expected-rq-timeout-ms".to_owned(),
        }
    }
}

/// A time-out for one try that follows the exponential moving average of response times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Adaptive {
    /// What answers may take on average; and each, once the average reaches it.
    pub target: Timespan,
    /// What one answer may take while the average is low. Not less than `target`.
    pub max: Timespan,
    /// How many answers the average looks back on: 1 to 100000.
    #[serde(default = "Adaptive::default_window")]
    #[schemars(range(min = 1, max = 100_000))]
    pub window: u32,
}

impl Adaptive {
    /// Smallest and largest `window`.
    pub const WINDOW: RangeInclusive<u32> = 1..=100_000;

    const fn default_window() -> u32 {
        100
    }
}

/// When requests are tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retries {
    /// Tries besides the first: at most 10.
    #[schemars(range(max = 10))]
    pub attempts: u32,
    /// What must have become of a try for another one.
    pub on: Vec<String>,
    /// Whether requests are tried again whose method does not say that they can be (POST, PATCH).
    pub all_methods: bool,
    /// The waits between tries.
    #[serde(deserialize_with = "default_if_null")]
    pub backoff: BackoffSpans,
    /// How many further tries may be under way at once.
    #[serde(deserialize_with = "default_if_null")]
    pub budget: Budget,
    /// When a request that has no answer yet is sent to another endpoint as well. Without it, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// How much of a request's body is kept for further tries, in bytes: at most 16777216.
    #[schemars(range(max = 16_777_216))]
    pub buffer_bytes: u32,
}

impl Retries {
    /// Most `attempts`.
    pub const MAX_ATTEMPTS: u32 = 10;
    /// Largest `bufferBytes`.
    pub const MAX_BUFFER: u32 = 16 << 20;
}

impl Default for Retries {
    fn default() -> Self {
        let on = [
            "connect-failure",
            "refused-stream",
            "reset",
            "503",
            "grpc-unavailable",
        ];
        debug_assert!(on.iter().all(|on| RetryCondition::parse(on).is_some()));
        Self {
            attempts: 2,
            on: on.map(str::to_owned).to_vec(),
            all_methods: false,
            backoff: BackoffSpans::default(),
            budget: Budget::default(),
            hedge: None,
            buffer_bytes: 64 << 10,
        }
    }
}

/// When a request that has no answer yet is sent to another endpoint as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hedge {
    /// After how long: a duration, or `p95`: what 95% of the answers of the last 30 to 60 s took less
    /// than (`p50` to `p99.99`; not before there were 20).
    #[serde(default = "Hedge::default_after")]
    #[schemars(regex(pattern = r"^(p[0-9]+(\.[0-9]+)?|([0-9]+(ns|us|ms|s|m|h))+)$"))]
    pub after: String,
    /// How often for one request: 1 to 3.
    #[serde(default = "Hedge::default_max")]
    #[schemars(range(min = 1, max = 3))]
    pub max: u32,
}

impl Hedge {
    /// Smallest and largest `max`.
    pub const MAX: RangeInclusive<u32> = 1..=3;

    fn default_after() -> String {
        "p95".to_owned()
    }

    const fn default_max() -> u32 {
        1
    }

    /// `after`, if it is one.
    pub fn parsed_after(&self) -> Option<HedgeAfter> {
        let span = || self.after.parse::<Timespan>().ok();
        let span = || span().filter(|span| Timeouts::RANGE.contains(span));
        let fixed = || span().map(|span| HedgeAfter::Fixed(span.get()));
        HedgeAfter::parse_percentile(&self.after).or_else(fixed)
    }
}

/// The waits between tries: random up to an end that doubles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BackoffSpans {
    /// Longest first wait.
    pub base: Timespan,
    /// Longest wait of all.
    pub max: Timespan,
}

impl Default for BackoffSpans {
    fn default() -> Self {
        Self {
            base: Timespan::from_millis(25),
            max: Timespan::from_millis(250),
        }
    }
}

/// How many further tries may be under way at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Budget {
    /// As a share of the requests under way: 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// So many in any case.
    pub floor: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            floor: 3,
        }
    }
}

/// How endpoints are picked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Balance {
    /// By what rule.
    pub algorithm: BalanceAlgorithm,
    /// What `consistent-hash` goes by: `source`, `header:NAME` or `cookie:NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For how long an endpoint that is new, or in rotation again, gets less than its share: a tenth
    /// at first. Without it: from the beginning as much as the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Timespan>,
}

/// By what rule endpoints are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BalanceAlgorithm {
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// Of two at random the one with fewer requests under way.
    LeastRequest,
    /// Of two at random the one where response time times requests under way is less.
    #[default]
    PeakEwma,
    /// The same endpoint for the same key.
    ConsistentHash,
}
