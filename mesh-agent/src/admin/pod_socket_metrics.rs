//! What the kernel measured of pods' own sockets, for `/metrics`.

use std::fmt;

use mesh_common::{Durations, PodSocketStats};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    metrics::family,
    pod_sockets::{LabelledStats, seconds},
};

/// One of the histograms of an entry.
type Histogram = fn(&PodSocketStats) -> &Durations;

const HISTOGRAMS: [(&str, &str, Histogram); 3] = [
    (
        "pod_socket_round_trip_seconds",
        "Round-trip times of connections that do not go through the agent, as TCP measures them",
        |it| &it.round_trip,
    ),
    (
        "pod_socket_to_device_seconds",
        "From the end of a send until the network device got its last byte",
        |it| &it.to_device,
    ),
    (
        "pod_socket_to_acknowledged_seconds",
        "From there until the peer's kernel acknowledged it",
        |it| &it.to_acknowledged,
    ),
];

/// Everything that was measured.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    sockets: &[LabelledStats],
) -> Result<(), fmt::Error> {
    for (name, help, count) in [
        (
            "pod_socket_connections",
            "Connections of pods that do not go through the agent",
            (|it| it.connections) as fn(&PodSocketStats) -> u64,
        ),
        (
            "pod_socket_retransmits",
            "Segments that they sent again",
            |it| it.retransmits,
        ),
    ] {
        let directions: Vec<String> = sockets.iter().map(|it| it.direction.to_string()).collect();
        let series = sockets.iter().zip(&directions);
        let series = series.map(|(it, direction)| (labels(it, direction), count(&it.stats)));
        family(encoder, name, help, series)?;
    }
    for (name, help, of) in HISTOGRAMS {
        let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for socket in sockets {
            let durations = of(&socket.stats);
            let count: u64 = durations.buckets.iter().sum();
            if count == 0 {
                continue;
            }
            let direction = socket.direction.to_string();
            let labels = labels(socket, &direction);
            descriptor
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(
                    seconds(durations.sum),
                    count,
                    &coarse(durations),
                    None,
                )?;
        }
    }
    Ok(())
}

fn labels<'a>(socket: &'a LabelledStats, direction: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("pod", &socket.pod),
        ("direction", direction),
        ("destination", &socket.destination),
    ]
}

/// Upper bounds in seconds, a factor of 4 apart, and what is below each of them and above the one before.
fn coarse(durations: &Durations) -> Vec<(f64, u64)> {
    /// Two doublings of 8.
    const JOINED: usize = 16;
    let (first, rest) = durations.buckets.split_at(1);
    let (middle, last) = rest.split_at(rest.len() - 1);
    let mut bounds = vec![(seconds(Durations::beginning_of(1)), first[0])];
    for (part, counts) in middle.chunks(JOINED).enumerate() {
        let end = Durations::beginning_of(1 + part * JOINED + counts.len());
        bounds.push((seconds(end), counts.iter().sum()));
    }
    bounds.push((f64::INFINITY, last[0]));
    bounds
}

#[cfg(test)]
mod tests {
    use super::coarse;
    use crate::admin::pod_sockets::tests::durations;

    #[test]
    fn coarse_buckets_lose_nothing() {
        let all = [0, 1_023, 1_024, 50_000, 10_400_000, 1 << 30, 1 << 40];
        let coarse = coarse(&durations(all));
        assert_eq!(coarse.iter().map(|(_, count)| count).sum::<u64>(), 7);
        assert!(coarse.is_sorted_by(|left, right| left.0 < right.0));
        for (bound, below) in [(0.000_001_024, 2), (0.004_194_304, 4), (1.073_741_824, 5)] {
            let counted = coarse.iter().filter(|(end, _)| *end <= bound);
            assert_eq!(
                counted.map(|(_, count)| count).sum::<u64>(),
                below,
                "{bound}"
            );
        }
    }
}
