//! Puts it together.

use std::{collections::BTreeMap, time::Instant};

use hdrhistogram::Histogram;

use super::model::{FigureTimes, Latency, Measured, Point, Served, StampCounts, Trace};
use crate::latency::{
    self, Book, BookCounts, Figure, Figures, Nanos, SHORTEST, Source, Stage, Stamp, Unclear,
};

const NANOS_PER_MICRO: f64 = 1_000.0;

/// Answer to `/latency`.
pub fn latency(book: &Book) -> Latency {
    let now = Instant::now();
    let mut destinations: BTreeMap<String, (Figures, Figures)> = BTreeMap::new();
    for ((_, destination), since_start) in book.since_start() {
        let (_, all) = destinations.entry(destination.to_string()).or_default();
        all.add(&since_start);
    }
    let mut series = Vec::new();
    for (key, of_key) in book.series() {
        let (recent, since_start) = (of_key.recent(now), of_key.since_start());
        series.push(Measured {
            destination: key.destination.to_string(),
            pod: Some(key.pod.to_string()),
            endpoint: Some(key.endpoint),
            recent: served(&recent),
            since_start: served(&since_start),
        });
        let (all, _) = destinations.entry(key.destination.to_string()).or_default();
        all.add(&recent);
    }
    let rate = book.rate();
    Latency {
        sample: rate.share,
        most_per_second: rate.most_per_second,
        stages: Stage::ALL.map(|stage| stage.name().to_owned()).to_vec(),
        destinations: destinations
            .into_iter()
            .map(|(destination, (recent, since_start))| Measured {
                destination,
                pod: None,
                endpoint: None,
                recent: served(&recent),
                since_start: served(&since_start),
            })
            .collect(),
        series,
        stamps: counts(book.counts()),
    }
}

const fn counts(counts: BookCounts) -> StampCounts {
    StampCounts {
        matched: counts.stamps.matched,
        again: counts.stamps.again,
        unmatched: counts.stamps.unmatched,
        measured: counts.measured,
        unfinished: counts.unfinished,
    }
}

fn served(figures: &Figures) -> Served {
    let sources = Source::ALL.iter().zip(figures.sources);
    let times = Figure::all().filter_map(|figure| {
        let histogram = figures.histogram(figure)?;
        Some((figure.name().to_owned(), times(histogram)))
    });
    Served {
        count: figures.count(),
        overlapping: figures.overlapping,
        inconsistent: figures.inconsistent,
        connections: figures.connections,
        retransmits: figures.retransmits,
        sources: sources
            .filter(|(_, count)| *count > 0)
            .map(|(source, count)| (source.name().to_owned(), count))
            .collect(),
        times: times.collect(),
    }
}

fn times(histogram: &Histogram<u32>) -> FigureTimes {
    // What is shorter than is told apart is nothing, not the end of its bucket.
    let told = |nanos| if nanos < SHORTEST { 0.0 } else { micros(nanos) };
    let quantile = |share| told(histogram.value_at_quantile(share));
    FigureTimes {
        mean: histogram.mean() / NANOS_PER_MICRO,
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        max: told(histogram.max()),
    }
}

/// Answer to `/traces`: the last `most` requests of a pod and to a destination, if these are given.
pub fn traces(
    book: &Book,
    pod: Option<&str>,
    destination: Option<&str>,
    most: usize,
) -> Vec<Trace> {
    let is_wanted = |trace: &latency::Trace| {
        pod.is_none_or(|pod| *pod == *trace.key.pod)
            && destination.is_none_or(|name| *name == *trace.key.destination)
    };
    let traces = book.traces(most, is_wanted);
    traces.iter().map(trace).collect()
}

fn trace(trace: &latency::Trace) -> Trace {
    let stages = trace.outcome.stages.as_ref();
    Trace {
        began: trace.way.received_first.stamp.at.0 as f64 / 1e9,
        pod: trace.key.pod.to_string(),
        destination: trace.key.destination.to_string(),
        endpoint: trace.key.endpoint,
        method: trace.method.to_string(),
        path: trace.path.to_string(),
        status: trace.status,
        trace_id: trace.trace.map(|it| format!("{:032x}", it.trace)),
        tries: trace.tries,
        total: stages.ok().map(|stages| micros(stages.total)),
        stages: stages.map_or_else(
            |_| BTreeMap::new(),
            |stages| {
                let all = Stage::ALL.iter();
                all.map(|stage| (stage.name().to_owned(), micros(stages.get(*stage))))
                    .collect()
            },
        ),
        unclear: stages.err().map(|unclear| {
            match unclear {
                Unclear::Overlapping => "the answer began before the request had ended",
                Unclear::Inconsistent => "the stamps cannot be: was the clock set?",
                Unclear::NoRequest => "it was none",
            }
            .to_owned()
        }),
        points: points(&trace.way),
        round_trip: trace.outcome.info.rtt.as_secs_f64() * 1e6,
        least_round_trip: trace.outcome.info.least_rtt.as_secs_f64() * 1e6,
        resent: trace.outcome.resent,
    }
}

fn points(way: &latency::Waypoints) -> Vec<Point> {
    let begun = way.received_first.stamp.at;
    let clock = |at: Nanos| Stamp {
        at,
        source: Source::Clock,
        uncertainty: 0,
    };
    let kernel = |at: Nanos, source| Stamp {
        at,
        source,
        uncertainty: 0,
    };
    let mut points = vec![
        ("request: first byte came", way.received_first.stamp),
        ("request: first byte read", clock(way.received_first.read)),
        ("request: last byte came", way.received_last.stamp),
        ("request: last byte read", clock(way.received_last.read)),
    ];
    if let Some(turn) = way.turn {
        points.push(("answer before it written", clock(turn)));
    }
    points.extend([
        ("first try began", clock(way.first_try)),
        ("answered try began", clock(way.last_try)),
        ("connected to the server", clock(way.connected)),
    ]);
    if let Some(at) = way.scheduled {
        points.push((
            "request: queued at the device",
            kernel(at, Source::Scheduled),
        ));
    }
    points.push(("request: sent by the device", way.sent));
    points.push(("request: written", clock(way.written)));
    if let Some(at) = way.sent_again {
        points.push(("request: sent again", kernel(at, Source::Software)));
    }
    if let Some(at) = way.acknowledged {
        points.push((
            "request: acknowledged by the server's kernel",
            kernel(at, Source::Software),
        ));
    }
    points.extend([
        ("answer: first byte came", way.answered_first.stamp),
        ("answer: first byte read", clock(way.answered_first.read)),
        ("answer: last byte came", way.answered_last.stamp),
        ("answer: last byte read", clock(way.answered_last.read)),
        ("answer: sent by the device", way.replied),
        ("answer: written", clock(way.answer_written)),
    ]);
    // What never happened has no time.
    points.retain(|(_, stamp)| stamp.at > Nanos::default());
    points.sort_by_key(|(_, stamp)| stamp.at);
    points
        .into_iter()
        .map(|(what, stamp)| Point {
            what: what.to_owned(),
            at: stamp.at.since(begun) as f64 / NANOS_PER_MICRO,
            source: stamp.source.name().to_owned(),
            uncertainty: (stamp.uncertainty > 0)
                .then(|| f64::from(stamp.uncertainty) / NANOS_PER_MICRO),
        })
        .collect()
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / NANOS_PER_MICRO
}
