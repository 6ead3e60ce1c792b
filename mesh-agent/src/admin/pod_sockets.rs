//! Answer to `/pod-sockets`: what the kernel measured of pods' own sockets, whose connections do not go
//! through the agent.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
};

use mesh_common::{DURATION_BUCKETS, Durations, PodSocketStats};
use serde::{Deserialize, Serialize};

use super::Report;
use crate::{config, kernel::MeasuredSockets, pods::PodState, proxy::Direction};

/// Answer to `/pod-sockets`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSockets {
    /// What is measured; `None` while the agent starts.
    pub measured: Option<Measured>,
    /// What was found, the longest round trips first. One is forgotten when nothing was measured of it
    /// for 15 minutes.
    pub sockets: Vec<PodSocket>,
}

/// What is measured of pods' own sockets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// What the configuration asks for.
    pub asked: config::PodSockets,
    /// What the kernel does.
    pub measured: config::PodSockets,
    /// Why that is less.
    pub reason: Option<String>,
}

/// All connections of a pod to one address and port, or to one port of its own server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSocket {
    /// Name of the pod.
    pub pod: String,
    /// Which way they were made, seen from the pod.
    pub direction: Direction,
    /// Name of the destination that has this address in the configuration, or the address itself.
    /// Inbound: the port.
    pub destination: String,
    /// Where the pod connected to.
    pub server: Option<SocketAddr>,
    /// How many there were.
    pub connections: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Round-trip times as TCP measures them, one in a tick of the kernel's at most. A peer may wait with its acknowledgement, 40 ms on Linux,
    /// for an answer to send it with.
    pub round_trip: Option<Spread>,
    /// Whether the kernel gives round-trip times smoothed only (before 6.10).
    pub is_round_trip_smoothed: bool,
    /// From the end of a send until its last byte was handed to the network device.
    pub to_device: Option<Spread>,
    /// From there until the peer's kernel acknowledged it.
    pub to_acknowledged: Option<Spread>,
}

/// How durations are spread, in seconds. Quantiles are known to a sixteenth, from 1 µs to 1.07 s.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// How many were measured.
    pub samples: u64,
    /// Their mean, exactly.
    pub mean: f64,
    /// What half of them took, at most.
    pub p50: f64,
    /// 90%.
    pub p90: f64,
    /// 99%.
    pub p99: f64,
    /// 99.9%.
    pub p999: f64,
}

impl Spread {
    /// `None` of none.
    fn of(durations: &Durations) -> Option<Self> {
        let samples: u64 = durations.buckets.iter().sum();
        if samples == 0 {
            return None;
        }
        let quantile = |share| quantile(durations, samples, share);
        Some(Self {
            samples,
            mean: seconds(durations.sum) / samples as f64,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
        })
    }
}

/// What `share` of the `samples` took at most, in seconds, as if each bucket's were spread evenly.
fn quantile(durations: &Durations, samples: u64, share: f64) -> f64 {
    let rank = ((samples as f64 * share).ceil() as u64).max(1);
    let mut below = 0;
    for (bucket, &count) in durations.buckets.iter().enumerate() {
        if below + count >= rank {
            let from = Durations::beginning_of(bucket);
            if bucket + 1 == DURATION_BUCKETS {
                return seconds(from);
            }
            let width = Durations::beginning_of(bucket + 1) - from;
            let part = ((rank - below) as f64 - 0.5) / count as f64;
            return (from as f64 + width as f64 * part) / 1e9;
        }
        below += count;
    }
    0.0
}

pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

impl Measured {
    /// Whether there is anything to say: they are measured, or were to be.
    pub fn is_of_interest(&self) -> bool {
        self.asked != config::PodSockets::Off
    }
}

impl From<&MeasuredSockets> for Measured {
    fn from(sockets: &MeasuredSockets) -> Self {
        Self {
            asked: sockets.asked,
            measured: sockets.measured,
            reason: sockets.why_not.clone(),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.measured)?;
        match &self.reason {
            Some(reason) => write!(formatter, " instead of {}: {reason}", self.asked),
            None => Ok(()),
        }
    }
}

/// What is counted under one set of labels.
#[derive(Debug)]
pub(super) struct LabelledStats {
    pub pod: String,
    pub direction: Direction,
    pub destination: String,
    server: Option<SocketAddr>,
    pub stats: Box<PodSocketStats>,
}

impl Report {
    /// Answer to `/pod-sockets`.
    pub fn pod_sockets(&self) -> PodSockets {
        let mut sockets: Vec<PodSocket> = self
            .named_pod_sockets()
            .into_iter()
            .map(|it| PodSocket {
                pod: it.pod,
                direction: it.direction,
                destination: it.destination,
                server: it.server,
                connections: it.stats.connections,
                retransmits: it.stats.retransmits,
                round_trip: Spread::of(&it.stats.round_trip),
                is_round_trip_smoothed: it.stats.smoothed != 0,
                to_device: Spread::of(&it.stats.to_device),
                to_acknowledged: Spread::of(&it.stats.to_acknowledged),
            })
            .collect();
        let median = |socket: &PodSocket| socket.round_trip.map_or(-1.0, |it| it.p50);
        sockets.sort_by(|left, right| median(right).total_cmp(&median(left)));
        PodSockets {
            measured: self.pod_sockets.get().map(Measured::from),
            sockets,
        }
    }

    /// The same with all addresses of a destination together: no series may have its like.
    pub(super) fn labelled_pod_sockets(&self) -> Vec<LabelledStats> {
        let mut by_label: BTreeMap<(String, bool, String), LabelledStats> = BTreeMap::new();
        for it in self.named_pod_sockets() {
            let is_inbound = it.direction == Direction::Inbound;
            let label = (it.pod.clone(), is_inbound, it.destination.clone());
            match by_label.get_mut(&label) {
                Some(known) => add(&mut known.stats, &it.stats),
                None => _ = by_label.insert(label, it),
            }
        }
        by_label.into_values().collect()
    }

    /// Those of enrolled pods: one that was un-enrolled this moment may still be in the map.
    fn named_pod_sockets(&self) -> Vec<LabelledStats> {
        let entries = self.maps.pod_sockets();
        if entries.is_empty() {
            return Vec::new();
        }
        let pods = self.pods.report().into_iter();
        let pods: HashMap<u64, String> = pods
            .filter(|pod| pod.state == PodState::Enrolled)
            .filter_map(|pod| Some((pod.netns_cookie?, pod.spec.name)))
            .collect();
        let destinations = self.pods.destinations();
        let named = entries.into_iter().filter_map(|entry| {
            let destination = match entry.server {
                Some(server) => destinations
                    .name_of(server)
                    .map_or_else(|| server.to_string(), |name| name.to_string()),
                None => format!("port {}", entry.port),
            };
            Some(LabelledStats {
                pod: pods.get(&entry.netns_cookie)?.clone(),
                direction: match entry.server {
                    Some(_) => Direction::Outbound,
                    None => Direction::Inbound,
                },
                destination,
                server: entry.server,
                stats: entry.stats,
            })
        });
        named.collect()
    }
}

fn add(to: &mut PodSocketStats, other: &PodSocketStats) {
    to.connections += other.connections;
    to.retransmits += other.retransmits;
    to.smoothed += other.smoothed;
    for (to, other) in [
        (&mut to.round_trip, &other.round_trip),
        (&mut to.to_device, &other.to_device),
        (&mut to.to_acknowledged, &other.to_acknowledged),
    ] {
        to.sum += other.sum;
        for (to, other) in to.buckets.iter_mut().zip(&other.buckets) {
            *to += other;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::Spread;
    use bytemuck::Zeroable as _;
    use mesh_common::Durations;

    pub fn durations(all: impl IntoIterator<Item = u64>) -> Durations {
        let mut durations = Durations::zeroed();
        for nanoseconds in all {
            durations.sum += nanoseconds;
            durations.buckets[Durations::bucket_of(nanoseconds)] += 1;
        }
        durations
    }

    #[test]
    fn quantiles_are_within_a_bucket_and_the_mean_is_exact() {
        let microseconds = 1..=10_000_u64;
        let spread = Spread::of(&durations(microseconds.map(|it| it * 1000))).expect("samples");
        assert_eq!(spread.samples, 10_000);
        assert!((spread.mean - 0.005_000_5).abs() < 1e-9, "{spread:?}");
        for (quantile, expected) in [
            (spread.p50, 0.005),
            (spread.p90, 0.009),
            (spread.p99, 0.0099),
            (spread.p999, 0.009_99),
        ] {
            let off = (quantile / expected - 1.0).abs();
            assert!(off < 1.0 / 16.0, "{quantile} for {expected}");
        }
    }

    #[test]
    fn equal_durations_are_off_by_a_sixteenth_at_most() {
        for nanoseconds in [1_100, 50_000, 10_400_000, 999_000_000] {
            let spread = Spread::of(&durations([nanoseconds; 7])).expect("samples");
            let off = (spread.p50 * 1e9 / nanoseconds as f64 - 1.0).abs();
            assert!(off <= 1.0 / 16.0, "{spread:?} for {nanoseconds}");
        }
        assert!(Spread::of(&durations([])).is_none());
    }
}
