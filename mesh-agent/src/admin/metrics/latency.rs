//! Where the time of measured requests goes.
//!
//! Figures are kept by pod, destination and server; here they are by pod and destination. Buckets are filled
//! from HDR histograms, whose times are off by half a per cent at the most.

use std::{collections::BTreeMap, fmt, fmt::Write as _};

use hdrhistogram::Histogram;
use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{counter, family};
use crate::{
    latency::{Book, BookCounts, Figure, Figures, Pair, Source, Stage},
    policy::trace_context::Caller,
};

/// Upper bounds, in seconds. There is one more bucket, for what takes longer.
const BOUNDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
const BUCKETS: usize = BOUNDS.len() + 1;

/// Everything of latency that there is a metric of.
#[derive(Debug, Default)]
pub(super) struct LatencyMetrics {
    pairs: BTreeMap<Pair, OfPair>,
    counts: BookCounts,
}

#[derive(Debug, Default)]
struct OfPair {
    stages: [Buckets; Stage::ALL.len()],
    total: Buckets,
    round_trip: Buckets,
    sources: [u64; Source::ALL.len()],
    retransmits: u64,
    /// The last request of each bucket that belongs to a trace which is kept.
    exemplars: [Option<Exemplar>; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Buckets {
    counts: [u64; BUCKETS],
    /// In seconds.
    sum: f64,
}

#[derive(Clone, Copy, Debug)]
struct Exemplar {
    trace_id: u128,
    /// In seconds.
    total: f64,
    /// In seconds since 1970.
    began: f64,
}

impl LatencyMetrics {
    /// What there is now.
    pub(super) fn of(book: &Book) -> Self {
        let mut pairs: BTreeMap<Pair, OfPair> = BTreeMap::new();
        for (pair, figures) in book.since_start() {
            pairs.entry(pair).or_default().add(&figures);
        }
        // The newest first. To a trace that is not kept there is no way.
        for trace in book.traces(usize::MAX, |it| {
            it.trace.is_some_and(|it| it.is_sampled) && it.outcome.stages.is_ok()
        }) {
            let (
                Some(pair),
                Some(Caller {
                    trace: trace_id, ..
                }),
                Ok(stages),
            ) = (
                pairs.get_mut(&trace.key.pair()),
                trace.trace,
                &trace.outcome.stages,
            )
            else {
                continue;
            };
            let total = stages.total as f64 / 1e9;
            pair.exemplars[bucket_of(total)].get_or_insert(Exemplar {
                trace_id,
                total,
                began: trace.way.received_first.stamp.at.0 as f64 / 1e9,
            });
        }
        Self {
            pairs,
            counts: book.counts(),
        }
    }

    /// All but [`Self::requests`].
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut descriptor = encoder.encode_descriptor(
            "stage_seconds",
            "Time of measured requests in each stage of their way, in seconds",
            None,
            MetricType::Histogram,
        )?;
        for ((pod, destination), of_pair) in &self.pairs {
            for (stage, buckets) in Stage::ALL.iter().zip(&of_pair.stages) {
                let labels = [
                    ("pod", &**pod),
                    ("destination", &**destination),
                    ("stage", stage.name()),
                ];
                buckets.encode(&mut descriptor, &labels)?;
            }
        }
        let mut descriptor = encoder.encode_descriptor(
            "round_trip_seconds",
            "Round trips to servers as TCP has them (smoothed), with measured requests and of connections without any, in seconds",
            None,
            MetricType::Histogram,
        )?;
        for ((pod, destination), of_pair) in &self.pairs {
            let labels = [("pod", &**pod), ("destination", &**destination)];
            of_pair.round_trip.encode(&mut descriptor, &labels)?;
        }
        let pairs = || {
            let pairs = self.pairs.iter();
            pairs.map(|((pod, destination), it)| {
                ([("pod", &**pod), ("destination", &**destination)], it)
            })
        };
        let by_source = pairs().flat_map(|([pod, destination], it)| {
            let sources = Source::ALL.iter().zip(it.sources);
            sources
                .map(move |(source, count)| ([pod, destination, ("source", source.name())], count))
        });
        let help = "Measured requests, by who says when they were handed to the device";
        family(encoder, "stamp_sources", help, by_source)?;
        let retransmits = pairs().map(|(labels, it)| (labels, it.retransmits));
        let help = "Segments of measured requests that were sent to the server again";
        family(encoder, "retransmits", help, retransmits)?;
        let BookCounts {
            stamps,
            measured,
            unfinished,
        } = self.counts;
        let outcomes = [
            ("matched", stamps.matched),
            ("again", stamps.again),
            ("unmatched", stamps.unmatched),
        ];
        let outcomes = outcomes.map(|(outcome, count)| ([("outcome", outcome)], count));
        let help = "Packet timestamps: matched to what was written, of what was sent again, of nothing known";
        family(encoder, "stamps", help, outcomes.into_iter())?;
        let help = "Requests whose measuring began";
        counter(encoder, "requests_measured", help, measured)?;
        let help = "Measured requests whose answers never ended";
        counter(encoder, "requests_unfinished", help, unfinished)
    }

    /// `mesh_agent_request_seconds`, written by hand: the encoder has no way to give exemplars for a histogram
    /// that it did not fill itself.
    pub(super) fn requests(&self, text: &mut String) -> Result<(), fmt::Error> {
        const NAME: &str = "mesh_agent_request_seconds";
        writeln!(
            text,
            "# HELP {NAME} All of the time of measured requests, in seconds.\n# TYPE {NAME} histogram"
        )?;
        for ((pod, destination), it) in &self.pairs {
            let (pod, destination) = (escaped(pod), escaped(destination));
            let labels = format!("pod=\"{pod}\",destination=\"{destination}\"");
            writeln!(text, "{NAME}_sum{{{labels}}} {:?}", it.total.sum)?;
            writeln!(text, "{NAME}_count{{{labels}}} {}", it.total.count())?;
            let bounds = BOUNDS.iter().map(|bound| format!("{bound:?}"));
            let bounds = bounds.chain(["+Inf".to_owned()]);
            let mut so_far = 0;
            for ((bound, count), exemplar) in bounds.zip(it.total.counts).zip(it.exemplars) {
                so_far += count;
                write!(text, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {so_far}")?;
                if let Some(Exemplar {
                    trace_id,
                    total,
                    began,
                }) = exemplar
                {
                    write!(
                        text,
                        " # {{trace_id=\"{trace_id:032x}\"}} {total:?} {began:.3}"
                    )?;
                }
                text.push('\n');
            }
        }
        Ok(())
    }
}

impl OfPair {
    fn add(&mut self, figures: &Figures) {
        for (stage, buckets) in Stage::ALL.into_iter().zip(&mut self.stages) {
            buckets.add(figures.histogram(Figure::Stage(stage)));
        }
        self.total.add(figures.histogram(Figure::Total));
        self.round_trip.add(figures.histogram(Figure::RoundTrip));
        for (mine, theirs) in self.sources.iter_mut().zip(figures.sources) {
            *mine += theirs;
        }
        self.retransmits += figures.retransmits;
    }
}

impl Buckets {
    fn add(&mut self, histogram: Option<&Histogram<u32>>) {
        let Some(histogram) = histogram else { return };
        for step in histogram.iter_recorded() {
            let value = histogram.median_equivalent(step.value_iterated_to()) as f64 / 1e9;
            let count = step.count_since_last_iteration();
            self.counts[bucket_of(value)] += count;
            self.sum += value * count as f64;
        }
    }

    fn encode<const N: usize>(
        &self,
        descriptor: &mut MetricEncoder<'_>,
        labels: &[(&str, &str); N],
    ) -> Result<(), fmt::Error> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts: Vec<(f64, u64)> = bounds.zip(self.counts).collect();
        descriptor
            .encode_family(labels)?
            .encode_histogram::<NoLabelSet>(self.sum, self.count(), &counts, None)
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Which bucket `seconds` belong to: bounds are inclusive.
fn bucket_of(seconds: f64) -> usize {
    BOUNDS.partition_point(|bound| *bound < seconds)
}

/// As a label's value is written.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use super::*;
    use crate::latency::{Key, Nanos, Outcome, Stages, TcpInfo, Trace, Waypoints};

    /// One whose server took so many milliseconds.
    fn trace(server: u64, trace: Option<(u128, bool)>) -> Trace {
        let mut way = Waypoints::default();
        let millis = |count: u64| Nanos(1_700_000_000_000_000_000 + count * 1_000_000);
        for at in [
            &mut way.received_first.stamp.at,
            &mut way.received_first.read,
            &mut way.received_last.stamp.at,
            &mut way.received_last.read,
            &mut way.first_try,
            &mut way.last_try,
            &mut way.connected,
            &mut way.written,
            &mut way.sent.at,
        ] {
            *at = millis(0);
        }
        for at in [
            &mut way.answered_first.stamp.at,
            &mut way.answered_first.read,
            &mut way.answered_last.stamp.at,
            &mut way.answered_last.read,
            &mut way.answer_written,
            &mut way.replied.at,
        ] {
            *at = millis(server);
        }
        Trace {
            key: Key {
                pod: "cli\"ent".into(),
                destination: "web".into(),
                endpoint: SocketAddr::from(([10, 0, 0, 1], server as u16)),
            },
            method: http::Method::GET,
            path: "/".into(),
            status: 200,
            trace: trace.map(|(trace, is_sampled)| Caller {
                trace,
                span: 1,
                is_sampled,
            }),
            tries: 1,
            way,
            outcome: Outcome {
                stages: Stages::of(&way),
                source: way.sent.source,
                info: TcpInfo::default(),
                resent: 1,
            },
        }
    }

    #[test]
    fn servers_are_counted_together_and_the_last_trace_of_a_bucket_is_named() {
        let book = Arc::<Book>::default();
        book.add_and_remember(trace(3, Some((0xa, true))));
        book.add_and_remember(trace(4, Some((0xb, true))));
        // That one cannot be looked up.
        book.add_and_remember(trace(4, Some((0xc, false))));
        book.add_and_remember(trace(30_000, None));
        let metrics = LatencyMetrics::of(&book);
        let mut text = String::new();
        metrics.requests(&mut text).unwrap();
        let line = |part: &str| {
            let line = text.lines().find(|line| line.contains(part));
            line.unwrap_or_else(|| panic!("no {part} in\n{text}"))
        };
        let labels = r#"pod="cli\"ent",destination="web""#;
        assert!(
            line("_count").ends_with(&format!("{{{labels}}} 4")),
            "{text}"
        );
        assert!(line("le=\"0.0025\"").ends_with(" 0"), "{text}");
        let with_exemplar = format!(
            "_bucket{{{labels},le=\"0.005\"}} 3 # {{trace_id=\"{}b\"}} 0.004 1700000000.000",
            "0".repeat(31)
        );
        assert!(line("le=\"0.005\"").ends_with(&with_exemplar), "{text}");
        assert!(line("le=\"10.0\"").ends_with(" 3"), "{text}");
        assert!(line("le=\"+Inf\"").ends_with(" 4"), "{text}");
        let sum: f64 = line("_sum").rsplit(' ').next().unwrap().parse().unwrap();
        assert!((sum / 30.011 - 1.0).abs() < 0.005, "{sum}");
        let server = metrics.pairs.values().next().unwrap().stages[Stage::Server as usize];
        assert_eq!(server.count(), 4);
    }

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(bucket_of(0.0), 0);
        assert_eq!(bucket_of(0.000_1), 0);
        assert_eq!(bucket_of(0.000_11), 1);
        assert_eq!(bucket_of(10.0), 15);
        assert_eq!(bucket_of(10.1), 16);
    }
}
