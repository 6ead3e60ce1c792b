//! How much may be asked of a destination.

use std::fmt;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mode;
use crate::config::values::{Timespan, default_if_null};

/// How much may be asked of a destination. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Limits {
    /// Whether they act; by default as the policy's `mode` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Connections in use at once: at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// Requests that wait for one of these connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// Requests under way at once: at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u32>,
    /// Requests under way at once, by how long answers take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveRange>,
    /// Requests in a time; each must allow a request: at most 8.
    #[serde(deserialize_with = "default_if_null")]
    #[schemars(length(max = 8))]
    pub rate: Vec<Rate>,
}

impl Limits {
    /// Most `rate`.
    pub const MAX_RATES: usize = 8;
}

/// Between what an adaptive limit moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AdaptiveRange {
    /// At least 1.
    #[schemars(range(min = 1))]
    pub min: u32,
    /// Not less than `min`.
    #[schemars(range(min = 1))]
    pub max: u32,
}

impl Default for AdaptiveRange {
    fn default() -> Self {
        Self { min: 4, max: 1000 }
    }
}

/// Requests in a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// By what rule.
    #[serde(default)]
    pub algorithm: RateAlgorithm,
    /// So many: 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub limit: u32,
    /// In this time: 1ms to 24h.
    #[serde(default = "Rate::default_per")]
    pub per: Timespan,
    /// `token-bucket`: how many at once, by default `limit`. `leaky-bucket`: how many may wait, by
    /// default 0. At most 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub burst: Option<u32>,
    /// Of what they are counted apart: `destination`, `pod` or `header:NAME`.
    #[serde(default)]
    pub by: RateKey,
    /// Whether all agents count together, in `agent.redis`.
    #[serde(default)]
    pub shared: bool,
    /// When less is allowed: at most 8.
    #[serde(default, deserialize_with = "default_if_null")]
    #[schemars(length(max = 8))]
    pub follow: Vec<FollowRule>,
}

impl Rate {
    /// Smallest and largest `limit`.
    pub const LIMIT: RangeInclusive<u32> = 1..=1_000_000;

    const fn default_per() -> Timespan {
        Timespan::from_secs(1)
    }
}

/// Most `follow` of a rate.
pub const MOST_FOLLOW_RULES: usize = 8;

/// When less than a rate is allowed. One of the three is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FollowRule {
    /// When this share of the calls failed lately: 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub failure_ratio: Option<f64>,
    /// When answers take longer than this on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_time: Option<Timespan>,
    /// When more requests than this are under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// What share of the limit is left then: 0.01 to 1.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub factor: f64,
}

/// By what rule requests in a time are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RateAlgorithm {
    /// So many in each span of the clock.
    FixedWindow,
    /// So many in any span, counted in slices.
    SlidingWindow,
    /// So many in any span, exactly.
    SlidingLog,
    /// One after the other; a few may wait.
    LeakyBucket,
    /// So many on average, more at once.
    #[default]
    TokenBucket,
}

/// Of what requests are counted apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RateKey {
    /// All together.
    #[default]
    Destination,
    /// For each pod that sends them.
    Pod,
    /// For each value of this header, in lower case. Without it, together.
    Header(String),
}

impl From<RateKey> for String {
    fn from(key: RateKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for RateKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("header:") {
            Some(name) if http::HeaderName::try_from(name).is_ok() => {
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            None if text == "destination" => Ok(Self::Destination),
            None if text == "pod" => Ok(Self::Pod),
            _ => Err(format!("`{text}` is nothing to count by")),
        }
    }
}

impl fmt::Display for RateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination => f.write_str("destination"),
            Self::Pod => f.write_str("pod"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl JsonSchema for RateKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RateKey".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "`destination`, `pod`, or `header:NAME`.",
            "pattern": "^(destination|pod|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$",
            "examples": ["destination", "pod", "header:x-tenant"],
        })
    }
}
