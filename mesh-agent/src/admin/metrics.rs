//! `/metrics`, in the OpenMetrics text format.

mod latency;

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use self::latency::LatencyMetrics;
use super::{Report, model::Destination, pod_socket_metrics, pod_sockets::LabelledStats};
use crate::{
    pods::PodState,
    proxy::{DetectionCounters, DnsStatus, Reason, TrafficList},
    telemetry::TelemetryCounts,
};

/// Everything that is counted, as text.
pub fn text(report: &Report) -> Result<String, fmt::Error> {
    const END: &str = "# EOF\n";
    let pods = report.pods.report();
    let latency = Arc::new(LatencyMetrics::of(report.pods.latency()));
    let mut registry = Registry::with_prefix("mesh_agent");
    let collector = Snapshot {
        connects: report.maps.counters(),
        enrolled: pods
            .iter()
            .filter(|pod| pod.state == PodState::Enrolled)
            .count(),
        configured: pods.len(),
        open: pods.iter().map(|pod| pod.connections_open).sum(),
        total: pods.iter().map(|pod| pod.connections_total).sum(),
        failed: pods.iter().map(|pod| pod.connections_failed).sum(),
        dns: pods
            .iter()
            .filter_map(|pod| Some((pod.spec.name.clone(), pod.dns?)))
            .collect(),
        traffic: pods
            .iter()
            .map(|pod| (pod.spec.name.clone(), pod.traffic.clone()))
            .collect(),
        hosts: report.pods.hosts().queries(),
        destinations: report.destinations(),
        detection: report.pods.detection(),
        telemetry: report.pods.telemetry().counts(),
        latency: Arc::clone(&latency),
        pod_sockets: report.labelled_pod_sockets(),
    };
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    text.truncate(text.strip_suffix(END).map_or(text.len(), str::len));
    latency.requests(&mut text)?;
    text.push_str(END);
    Ok(text)
}

#[derive(Debug)]
struct Snapshot {
    connects: Vec<(&'static str, &'static str, u64)>,
    enrolled: usize,
    configured: usize,
    open: usize,
    total: u64,
    failed: u64,
    dns: Vec<(String, DnsStatus)>,
    traffic: Vec<(String, TrafficList)>,
    hosts: Vec<(String, u64)>,
    destinations: Vec<Destination>,
    detection: Arc<DetectionCounters>,
    telemetry: TelemetryCounts,
    latency: Arc<LatencyMetrics>,
    pod_sockets: Vec<LabelledStats>,
}

impl prometheus_client::collector::Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for &(name, help, value) in &self.connects {
            counter(
                &mut encoder,
                &format!("kernel_{}", snake_case(name)),
                help,
                value,
            )?;
        }
        counter(
            &mut encoder,
            "connections",
            "Connections through the agent",
            self.total,
        )?;
        counter(
            &mut encoder,
            "connections_failed",
            "Connections whose server could not be reached",
            self.failed,
        )?;
        gauge(
            &mut encoder,
            "connections_open",
            "Open connections through the agent",
            self.open,
        )?;
        gauge(
            &mut encoder,
            "pods_configured",
            "Pods in the configuration",
            self.configured,
        )?;
        gauge(
            &mut encoder,
            "pods_enrolled",
            "Pods whose traffic is captured",
            self.enrolled,
        )?;
        dns(&mut encoder, &self.dns)?;
        let mut descriptor = encoder.encode_descriptor(
            "dns_host_queries",
            "Queries for names of the configuration",
            None,
            MetricType::Counter,
        )?;
        for (host, count) in &self.hosts {
            let labels = [("host", host.as_str())];
            ConstCounter::new(*count).encode(descriptor.encode_family(&labels)?)?;
        }
        detection(&mut encoder, &self.detection)?;
        for (name, help, count) in [
            (
                "access_log_dropped",
                "Lines that the access log did not take",
                self.telemetry.log_lines_dropped,
            ),
            (
                "spans_exported",
                "Spans that the collector took",
                self.telemetry.spans_exported,
            ),
            (
                "spans_dropped",
                "Spans that the collector did not take",
                self.telemetry.spans_dropped,
            ),
        ] {
            counter(&mut encoder, name, help, count)?;
        }
        traffic(&mut encoder, &self.traffic)?;
        pod_socket_metrics::encode(&mut encoder, &self.pod_sockets)?;
        destinations(&mut encoder, &self.destinations)?;
        self.latency.encode(&mut encoder)
    }
}

/// What clients speak.
fn detection(
    encoder: &mut DescriptorEncoder<'_>,
    detection: &DetectionCounters,
) -> Result<(), fmt::Error> {
    let outcomes = detection.outcomes();
    let outcomes = outcomes.map(|(outcome, count)| ([("outcome", outcome)], count));
    family(
        encoder,
        "detections",
        "Connections whose protocol was detected, by what was found",
        outcomes,
    )?;
    counter(
        encoder,
        "detections_late",
        "Detections that the deadline decided",
        detection.late(),
    )?;
    let took = detection.took();
    let descriptor = encoder.encode_descriptor(
        "detection_seconds",
        "From a client's first byte until its protocol was known",
        None,
        took.metric_type(),
    )?;
    took.encode(descriptor)?;
    let names = detection.server_names();
    let named = names.iter().map(|((destination, name), count)| {
        (
            [("destination", &**destination), ("server_name", &**name)],
            *count,
        )
    });
    family(
        encoder,
        "tls_connections",
        "TLS connections that name their server; the 256 names that were used last",
        named,
    )
}

/// What became of requests, by pod and destination, as long as there are any.
fn traffic(
    encoder: &mut DescriptorEncoder<'_>,
    pods: &[(String, TrafficList)],
) -> Result<(), fmt::Error> {
    const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let pairs = || {
        pods.iter().flat_map(|(pod, traffic)| {
            let pairs = traffic.iter();
            pairs.map(move |(destination, outcomes)| {
                ([("pod", &**pod), ("destination", &**destination)], outcomes)
            })
        })
    };
    let by_class = pairs().flat_map(|([pod, destination], outcomes)| {
        let answered = CLASSES.iter().zip(outcomes.answered);
        let answered = answered.filter(|(_, count)| *count > 0);
        answered.map(move |(class, count)| ([pod, destination, ("class", *class)], count))
    });
    let help = "Requests answered, by pod and destination; forgotten after 15 minutes without any";
    family(encoder, "pod_requests", help, by_class)?;
    let by_reason = pairs().flat_map(|([pod, destination], outcomes)| {
        let own = Reason::ALL.iter().zip(outcomes.own_answers);
        let own = own.filter(|(_, count)| *count > 0);
        own.map(move |(reason, count)| ([pod, destination, ("reason", reason.code())], count))
    });
    let help = "Answers that the agent made itself, by pod and destination";
    family(encoder, "pod_own_answers", help, by_reason)
}

/// One of the counts of a destination.
type Count = fn(&Destination) -> u64;

/// Counts of a destination, by kind.
type Counts = fn(&Destination) -> &BTreeMap<String, u64>;

/// What is counted of each destination by kind: its name, help and the label of the kind.
const BY_KIND: [(&str, &str, &str, Counts); 3] = [
    (
        "requests",
        "Requests answered, by class of status",
        "class",
        |it| &it.answered,
    ),
    (
        "own_answers",
        "Answers that the agent made itself, by reason",
        "reason",
        |it| &it.own_answers,
    ),
    (
        "would_refuse",
        "Requests that would have been refused, but for mode: observe",
        "reason",
        |it| &it.would_refuse,
    ),
];

/// What is counted of each destination, with its help.
const BY_NAME: [(&str, &str, Count); 6] = [
    ("retries", "Further tries", |it| it.retries),
    (
        "hedges",
        "Further tries that did not wait for another to fail",
        |it| it.hedges,
    ),
    (
        "hedges_won",
        "Hedges that were answered before the try before them",
        |it| it.hedges_won,
    ),
    (
        "retries_over_budget",
        "Further tries that the budget did not allow",
        |it| it.retries_over_budget,
    ),
    (
        "degraded",
        "Answers that stood for a refusal or a failure",
        |it| it.degraded,
    ),
    ("breaker_trips", "Times that the breaker opened", |it| {
        it.breaker.as_ref().map_or(0, |it| u64::from(it.trips))
    }),
];

/// What became of requests, by destination and server.
fn destinations(
    encoder: &mut DescriptorEncoder<'_>,
    destinations: &[Destination],
) -> Result<(), fmt::Error> {
    for (name, help, label, counts) in BY_KIND {
        let series = destinations.iter().flat_map(|destination| {
            let name = &*destination.name;
            let counts = counts(destination).iter();
            counts.map(move |(kind, count)| ([("destination", name), (label, &**kind)], *count))
        });
        family(encoder, name, help, series)?;
    }
    for (name, help, count) in BY_NAME {
        let series = destinations.iter();
        let series = series.map(|it| ([("destination", &*it.name)], count(it)));
        family(encoder, name, help, series)?;
    }
    breaker_states(encoder, destinations)?;
    let endpoints: Vec<(&str, String, u64, u64)> = destinations
        .iter()
        .flat_map(|destination| {
            let endpoints = destination.endpoints.iter();
            endpoints.map(|it| {
                (
                    &*destination.name,
                    it.address.to_string(),
                    it.tries,
                    it.failed,
                )
            })
        })
        .collect();
    let tries = endpoints.iter();
    let tries = tries.map(|(name, address, tries, _)| (endpoint_labels(name, address), *tries));
    family(encoder, "tries", "Tries, by server", tries)?;
    let failed = endpoints.iter();
    let failed = failed.map(|(name, address, _, failed)| (endpoint_labels(name, address), *failed));
    family(
        encoder,
        "tries_failed",
        "Tries that failed, by server",
        failed,
    )
}

/// One gauge, so that a query needs no list of states: 0 closed, 1 half open, 2 open.
fn breaker_states(
    encoder: &mut DescriptorEncoder<'_>,
    destinations: &[Destination],
) -> Result<(), fmt::Error> {
    let mut descriptor = encoder.encode_descriptor(
        "breaker_state",
        "0: closed, 1: half open, 2: open",
        None,
        MetricType::Gauge,
    )?;
    for destination in destinations {
        let Some(breaker) = &destination.breaker else {
            continue;
        };
        let state: i64 = match breaker.state.as_str() {
            "closed" => 0,
            "half-open" => 1,
            _ => 2,
        };
        let labels = [("destination", &*destination.name)];
        ConstGauge::new(state).encode(descriptor.encode_family(&labels)?)?;
    }
    Ok(())
}

fn endpoint_labels<'a>(destination: &'a str, address: &'a str) -> [(&'a str, &'a str); 2] {
    [("destination", destination), ("endpoint", address)]
}

/// One counter with a series for each set of labels.
pub(super) fn family<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl Iterator<Item = ([(&'a str, &'a str); N], u64)>,
) -> Result<(), fmt::Error> {
    let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in series {
        ConstCounter::new(count).encode(descriptor.encode_family(&labels)?)?;
    }
    Ok(())
}

/// One family for each DNS counter, one series for each pod.
fn dns(
    encoder: &mut DescriptorEncoder<'_>,
    pods: &[(String, DnsStatus)],
) -> Result<(), fmt::Error> {
    for (index, (name, help, _)) in DnsStatus::default().list().into_iter().enumerate() {
        let name = format!("dns_{name}");
        let mut descriptor = encoder.encode_descriptor(
            &name,
            help.trim_end_matches('.'),
            None,
            MetricType::Counter,
        )?;
        for (pod, status) in pods {
            let (_, _, value) = status.list()[index];
            let labels = [("pod", pod.as_str())];
            ConstCounter::new(value).encode(descriptor.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let metric = ConstCounter::new(value);
    let descriptor =
        encoder.encode_descriptor(name, help.trim_end_matches('.'), None, metric.metric_type())?;
    metric.encode(descriptor)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: usize,
) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    let descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(descriptor)
}

fn snake_case(camel_case: &str) -> String {
    let mut name = String::with_capacity(camel_case.len() + 4);
    for character in camel_case.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}
