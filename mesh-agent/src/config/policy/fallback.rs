//! What is answered instead of a refusal or a failure.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::default_if_null;

/// What is answered instead of a refusal or a failure: another destination's answer, or always the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Fallback {
    /// Name of the destination that is asked instead. Nothing else is given then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Status of the answer: 200 to 599, by default 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// Headers of the answer.
    #[serde(deserialize_with = "default_if_null")]
    pub headers: BTreeMap<String, String>,
    /// Text of the answer: at most 65536 bytes.
    #[schemars(length(max = 65_536))]
    pub body: String,
}

impl Fallback {
    /// Smallest and largest `status`.
    pub const STATUS: RangeInclusive<u16> = 200..=599;
    /// Longest `body`, in bytes.
    pub const MAX_BODY: usize = 65_536;
}
