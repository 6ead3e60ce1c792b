//! Where time goes, as JSON. All times are in microseconds.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// Answer to `/latency`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Which share of the requests is measured.
    pub sample: f64,
    /// How many of each destination are measured in a second at the most.
    pub most_per_second: u32,
    /// Names of the stages, in the order of a request's way. Together they are its `total`.
    pub stages: Vec<String>,
    /// By destination, all pods and servers together.
    pub destinations: Vec<Measured>,
    /// By pod, destination and server.
    pub series: Vec<Measured>,
    /// What became of stamps.
    pub stamps: StampCounts,
}

/// Whose figures they are, and the figures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// The destination.
    pub destination: String,
    /// The pod; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The server; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Of the last half to whole minute.
    pub recent: Served,
    /// Since the agent started.
    pub since_start: Served,
}

/// The figures of some requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// How many were measured.
    pub count: u64,
    /// Measured as well, without figures: the answer began before the request had ended.
    pub overlapping: u64,
    /// The same: stamps that cannot be (the clock was set).
    pub inconsistent: u64,
    /// Looks at connections that carry no requests (TLS, other protocols), of which TCP's round trips and segments sent
    /// again are known: one when each ended, and one every 30 seconds before.
    #[serde(default)]
    pub connections: u64,
    /// Segments to the server that were sent again.
    pub retransmits: u64,
    /// Who says when requests were handed to the device: `hardware`, `software`, `scheduled` (before the
    /// device's queue) or `clock` (the agent's own).
    pub sources: BTreeMap<String, u64>,
    /// By stage, and `total` and `roundTrip`: how long they took.
    pub times: BTreeMap<String, FigureTimes>,
}

impl Served {
    /// Whether anything was measured, with figures or not.
    pub const fn is_any(&self) -> bool {
        self.are_requests() || self.connections > 0
    }

    /// Whether anything of it was a request.
    pub const fn are_requests(&self) -> bool {
        self.count + self.overlapping + self.inconsistent > 0
    }
}

/// How long something took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FigureTimes {
    /// On average.
    pub mean: f64,
    /// Half of them at most.
    pub p50: f64,
    /// Nine of ten at most.
    pub p90: f64,
    /// 99 of 100 at most.
    pub p99: f64,
    /// 999 of 1000 at most.
    pub p999: f64,
    /// All of them at most.
    pub max: f64,
}

/// What became of stamps and measured requests, since the agent started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StampCounts {
    /// Stamps that were matched to what was written.
    pub matched: u64,
    /// Stamps of what was sent again.
    pub again: u64,
    /// Stamps of nothing that is known.
    pub unmatched: u64,
    /// Requests whose measuring began.
    pub measured: u64,
    /// Of those, whose answers never ended.
    pub unfinished: u64,
}

/// Element of the answer to `/traces`: one request, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// When its first byte came, in seconds since 1970.
    pub began: f64,
    /// The pod.
    pub pod: String,
    /// Where it went.
    pub destination: String,
    /// The server that answered.
    pub endpoint: SocketAddr,
    /// Its method.
    pub method: String,
    /// The beginning of its path.
    pub path: String,
    /// Status of its answer.
    pub status: u16,
    /// The trace that it belongs to, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// How often it was tried.
    pub tries: u32,
    /// All of its time, in microseconds; `None` if its stamps give no stages.
    pub total: Option<f64>,
    /// By stage, in microseconds.
    pub stages: BTreeMap<String, f64>,
    /// Why there are no stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclear: Option<String>,
    /// Its stamps, in the order of its way.
    pub points: Vec<Point>,
    /// Round-trip time of the connection to the server (smoothed), in microseconds.
    pub round_trip: f64,
    /// The shortest that the kernel has seen there.
    pub least_round_trip: f64,
    /// Segments that had to be sent again for it.
    pub resent: u32,
}

/// A stamp of a request's way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// What happened.
    pub what: String,
    /// When, in microseconds since the request's first byte came.
    pub at: f64,
    /// Who says so: `hardware`, `software`, `scheduled` or `clock`.
    pub source: String,
    /// How far off it may be, in microseconds, where it was brought from a card's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty: Option<f64>,
}
