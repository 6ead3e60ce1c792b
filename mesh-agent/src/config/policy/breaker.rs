//! What keeps destinations that fail from being asked.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Mode;
use crate::config::values::{Timespan, default_if_null};

/// What keeps failing servers from being asked. The breaker is on if `consecutive`, `failureRatio` or
/// `slowCall` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Breaker {
    /// Whether it acts; by default as the policy's `mode` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// It opens after so many failures in a row: at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub consecutive: Option<u32>,
    /// It opens when this share of the calls failed: 0.01 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub failure_ratio: Option<f64>,
    /// It opens when too many calls are slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_call: Option<SlowCall>,
    /// How far back calls count for the two shares: a duration, or a number of calls.
    pub window: CallWindow,
    /// With fewer calls the shares say nothing: at least 1.
    #[schemars(range(min = 1))]
    pub minimum_calls: u32,
    /// For how long it must have been so: at most 1h.
    pub sustained: Timespan,
    /// How long it stays open.
    #[serde(deserialize_with = "default_if_null")]
    pub open_for: OpenSpans,
    /// How requests are let through again after that.
    #[serde(deserialize_with = "default_if_null")]
    pub half_open: HalfOpenSteps,
    /// What counts as a failure: as `retries.on`, but for headers.
    pub failures: Vec<String>,
    /// Refuses a growing share of the requests while they fail. Without it, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttling>,
    /// When single endpoints are taken out. Without it they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
}

impl Breaker {
    /// Whether anything opens it.
    pub const fn is_on(&self) -> bool {
        self.consecutive.is_some() || self.failure_ratio.is_some() || self.slow_call.is_some()
    }

    /// Longest `sustained`.
    pub const MAX_SUSTAINED: Timespan = Timespan::from_secs(3600);
}

impl Default for Breaker {
    fn default() -> Self {
        let failures = ["5xx", "per-try-timeout", "reset", "grpc-unavailable"];
        Self {
            mode: None,
            consecutive: None,
            failure_ratio: None,
            slow_call: None,
            window: CallWindow::Time(Timespan::from_secs(30)),
            minimum_calls: 20,
            sustained: Timespan::from_secs(0),
            open_for: OpenSpans::default(),
            half_open: HalfOpenSteps::default(),
            failures: failures.map(str::to_owned).to_vec(),
            throttle: None,
            ejection: None,
        }
    }
}

/// When too many calls are slow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowCall {
    /// From when on a call is slow, until its answer begins.
    pub threshold: Timespan,
    /// Which share of slow calls is too much: 0.01 to 1.
    #[serde(default = "SlowCall::default_ratio")]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub ratio: f64,
}

impl SlowCall {
    const fn default_ratio() -> f64 {
        0.5
    }
}

/// How far back calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CallWindow {
    /// So long.
    Time(Timespan),
    /// The last so many.
    Calls(u32),
}

impl CallWindow {
    /// Fewest and most calls.
    pub const CALLS: RangeInclusive<u32> = 1..=10_000;
}

impl From<CallWindow> for String {
    fn from(window: CallWindow) -> Self {
        window.to_string()
    }
}

impl TryFrom<String> for CallWindow {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for CallWindow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let calls = text.parse().map_err(|_| format!("`{text}` is too large"))?;
            return Ok(Self::Calls(calls));
        }
        text.parse().map(Self::Time)
    }
}

impl fmt::Display for CallWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(span) => span.fmt(f),
            Self::Calls(calls) => calls.fmt(f),
        }
    }
}

impl JsonSchema for CallWindow {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CallWindow".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration such as 30s, or a number of calls from 1 to 10000.",
            "oneOf": [
                {"type": "string", "pattern": "^([0-9]+(ns|us|ms|s|m|h))+$"},
                {"type": "integer", "minimum": 1, "maximum": 10_000},
            ],
            "examples": ["30s", 100],
        })
    }
}

/// How long a breaker stays open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OpenSpans {
    /// The first time; twice as long each time again.
    pub base: Timespan,
    /// At most.
    pub max: Timespan,
}

impl Default for OpenSpans {
    fn default() -> Self {
        Self {
            base: Timespan::from_secs(5),
            max: Timespan::from_secs(60),
        }
    }
}

/// How requests are let through again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HalfOpenSteps {
    /// Growing shares of the requests: 1 to 10 of them, each above 0 and at most 1.
    #[schemars(length(min = 1, max = 10), inner(range(min = 0.01, max = 1.0)))]
    pub steps: Vec<f64>,
    /// By how many calls each step is judged: 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub calls: u32,
    /// What a call may take meanwhile, until its answer begins. Without it, what it may take anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timespan>,
}

impl HalfOpenSteps {
    /// Smallest and largest share.
    pub const SHARE: RangeInclusive<f64> = 0.01..=1.0;
    /// Most `steps`.
    pub const MAX_STEPS: usize = 10;
    /// Fewest and most `calls`.
    pub const CALLS: RangeInclusive<u32> = 1..=1000;
}

impl Default for HalfOpenSteps {
    fn default() -> Self {
        Self {
            steps: vec![0.1, 0.25, 0.5, 1.0],
            calls: 5,
            timeout: None,
        }
    }
}

/// Refuses a growing share of the requests while they fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Throttling {
    /// Whether it acts; by default as the breaker's `mode` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How many requests for each that succeeds are let through: 1 to 100.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub k: f64,
    /// How far back requests count.
    pub window: Timespan,
}

impl Throttling {
    /// Smallest and largest `k`.
    pub const K: RangeInclusive<f64> = 1.0..=100.0;
}

impl Default for Throttling {
    fn default() -> Self {
        Self {
            mode: None,
            k: 2.0,
            window: Timespan::from_secs(120),
        }
    }
}

/// When single endpoints are taken out, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Ejection {
    /// After so many failures in a row: at least 1.
    #[schemars(range(min = 1))]
    pub consecutive: u32,
    /// And when so many of its calls failed: a share from 0.01 to 1. Without it that does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub failure_ratio: Option<f64>,
    /// How many calls `failureRatio` needs: at least 1.
    #[schemars(range(min = 1))]
    pub minimum_calls: u32,
    /// How far back calls count for `failureRatio`.
    pub window: Timespan,
    /// For how long the first time; longer each time again.
    pub base: Timespan,
    /// For how long at most.
    pub max: Timespan,
    /// Largest share of the endpoints that may be out at once: 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub at_most: f64,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive: 5,
            failure_ratio: None,
            minimum_calls: 20,
            window: Timespan::from_secs(10),
            base: Timespan::from_secs(30),
            max: Timespan::from_secs(300),
            at_most: 0.5,
        }
    }
}
