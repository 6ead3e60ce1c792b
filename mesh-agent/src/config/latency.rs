//! What is measured of where time goes, and how.

use std::{fmt, ops::RangeInclusive};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is measured of where time goes, by packet timestamps of the kernel and the network cards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Latency {
    /// Which share of the requests of each destination is measured: 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// How many of each destination are measured in a second at the most: 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub most_per_second: u32,
    /// Whether network cards are told to give timestamps of their own.
    pub hardware: HardwareStamps,
    /// What the kernel measures of sockets of pods that do not go through the agent.
    pub pod_sockets: PodSockets,
    /// Whether answers to measured requests say where their time went, in `server-timing`.
    pub server_timing: bool,
}

impl Latency {
    /// Smallest and largest `mostPerSecond`.
    pub const MOST_PER_SECOND: RangeInclusive<u32> = 1..=1_000_000;
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            sample: 0.01,
            most_per_second: 100,
            hardware: HardwareStamps::Auto,
            pod_sockets: PodSockets::Off,
            server_timing: false,
        }
    }
}

/// Whether network cards are told to give timestamps of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HardwareStamps {
    /// Those that can, if nobody else has set them; a card that refuses is left as it is.
    #[default]
    Auto,
    /// Those that can; a card that cannot, or refuses, is warned of.
    On,
    /// No card's setting is touched, and its timestamps are not asked for.
    Off,
}

/// What the kernel measures of sockets of pods that do not go through the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PodSockets {
    /// Nothing.
    #[default]
    Off,
    /// Round-trip times and retransmissions.
    Rtt,
    /// Also how long what they send takes to the device and to the peer's kernel (Linux 6.15).
    Stamps,
}

impl fmt::Display for PodSockets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Off => "off",
            Self::Rtt => "rtt",
            Self::Stamps => "stamps",
        })
    }
}
