//! What keeps the servers of a pod from being asked more than they can do.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{AdaptiveRange, Mode};
use super::values::{Timespan, default_if_null};

/// What keeps the servers of a pod from being asked more than they can do, on the way in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Overload {
    /// Whether it acts, or only says what it would refuse.
    pub mode: Mode,
    /// How many requests a server works on at once: at least 1. Without it, as many as `adaptive` finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
    /// How many that is, by how long answers take.
    #[serde(deserialize_with = "default_if_null")]
    pub adaptive: AdaptiveRange,
    /// Where the others wait.
    #[serde(deserialize_with = "default_if_null")]
    pub queue: WaitingQueue,
    /// Which requests are refused while they wait too long. Without it, only by the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission: Option<AdmissionControl>,
    /// Which requests are refused last: `path:/PREFIX` or `header:NAME`.
    #[serde(deserialize_with = "default_if_null")]
    pub critical: Vec<String>,
}

/// Where requests wait for their turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WaitingQueue {
    /// How long a request may wait: 1ms to 1h.
    pub max_wait: Timespan,
    /// How long while the queue has not been empty for `maxWait`: 1ms to `maxWait`.
    pub min_wait: Timespan,
    /// When the newest request goes first.
    pub lifo: LifoRule,
    /// How many may wait: at most 65536.
    #[schemars(range(max = 65_536))]
    pub size: u32,
}

impl WaitingQueue {
    /// Shortest and longest wait.
    pub const WAIT: RangeInclusive<Timespan> =
        Timespan::from_millis(1)..=Timespan::from_secs(60 * 60);
    /// Largest `size`.
    pub const MAX_SIZE: u32 = 65_536;
}

impl Default for WaitingQueue {
    fn default() -> Self {
        Self {
            max_wait: Timespan::from_millis(100),
            min_wait: Timespan::from_millis(5),
            lifo: LifoRule::Adaptive,
            size: 1024,
        }
    }
}

/// When the newest request goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LifoRule {
    /// While the queue has not been empty for `maxWait`.
    #[default]
    Adaptive,
    /// Never.
    Never,
    /// Always.
    Always,
}

/// Which requests are refused while requests wait too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AdmissionControl {
    /// What they may wait on average: 1ms to 1h.
    pub wait_target: Timespan,
    /// Header that says how important a request is.
    #[schemars(regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"))]
    pub priority_header: String,
    /// Header that says whose it is.
    #[schemars(regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"))]
    pub user_header: String,
}

impl Default for AdmissionControl {
    fn default() -> Self {
        Self {
            wait_target: Timespan::from_millis(20),
            priority_header: "x-mesh-priority".to_owned(),
            user_header: "x-user-id".to_owned(),
        }
    }
}
