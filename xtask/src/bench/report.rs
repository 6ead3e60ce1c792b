//! Medians, ratios and targets.

use super::disturbance::TOO_MUCH;
use super::http;
use super::idle;
use super::pod_sockets;
use super::statistics::median;
use super::variant::Variant;
use super::workload::{Measured, Workload};
use console::style;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::thread;

/// All measurements of a run.
pub struct Report {
    rounds: u32,
    seconds: u32,
    samples: BTreeMap<(Workload, Variant), Vec<Measured>>,
    /// Resident memory of the idle agent in MiB.
    pub idle: Option<f64>,
    /// HTTP beside other proxies.
    pub http: Option<http::Report>,
    /// What measuring pods' own sockets costs.
    pub pod_sockets: Option<pod_sockets::Report>,
    /// Share of the processors that other processes took, from 0 to 1.
    pub disturbance: f64,
}

/// A ratio that the agent is to reach.
struct Target {
    workload: Workload,
    variant: Variant,
    reference: Variant,
    at_least: f64,
}

const TARGETS: [Target; 5] = [
    target(Workload::Connects, Variant::Agent, Variant::Iptables, 1.1),
    target(Workload::Bulk, Variant::Agent, Variant::NoMesh, 0.65),
    target(
        Workload::KeepAlive,
        Variant::Unenrolled,
        Variant::NoMesh,
        0.98,
    ),
    target(
        Workload::Connects,
        Variant::Unenrolled,
        Variant::NoMesh,
        0.98,
    ),
    target(Workload::Bulk, Variant::Unenrolled, Variant::NoMesh, 0.98),
];
/// Most resident memory of the idle agent, in MiB.
const IDLE_BELOW: f64 = 20.0;

const fn target(workload: Workload, variant: Variant, reference: Variant, at_least: f64) -> Target {
    Target {
        workload,
        variant,
        reference,
        at_least,
    }
}

impl Report {
    /// An empty one.
    pub fn new(rounds: u32, seconds: u32) -> Self {
        Self {
            rounds,
            seconds,
            disturbance: 0.0,
            samples: BTreeMap::new(),
            idle: None,
            pod_sockets: None,
            http: None,
        }
    }

    /// Adds one measurement; rounds are told apart by their order.
    pub fn add(&mut self, workload: Workload, variant: Variant, measured: Measured) {
        self.samples
            .entry((workload, variant))
            .or_default()
            .push(measured);
    }

    fn rates(&self, workload: Workload, variant: Variant) -> Vec<f64> {
        let samples = self.samples.get(&(workload, variant));
        samples
            .into_iter()
            .flatten()
            .map(|measured| measured.rate)
            .collect()
    }

    fn median_rate(&self, workload: Workload, variant: Variant) -> Option<f64> {
        median(self.rates(workload, variant))
    }

    fn median_latency(&self, workload: Workload, variant: Variant) -> Option<f64> {
        let samples = self.samples.get(&(workload, variant))?;
        median(
            samples
                .iter()
                .filter_map(|measured| measured.latency)
                .collect(),
        )
    }

    fn median_cpu(&self, workload: Workload, variant: Variant) -> Option<f64> {
        let samples = self.samples.get(&(workload, variant))?;
        median(
            samples
                .iter()
                .filter_map(|measured| measured.agent_cpu)
                .collect(),
        )
    }

    /// The median of the rounds' ratios: within a round the machine is most alike.
    fn ratio(&self, workload: Workload, variant: Variant, reference: Variant) -> Option<f64> {
        let of = self.rates(workload, variant);
        let to = self.rates(workload, reference);
        median(of.into_iter().zip(to).map(|(of, to)| of / to).collect())
    }

    /// Prints medians, ratios, and which targets are met.
    pub fn print(&self) {
        let measured = |workload: &Workload| {
            let mut samples = self.samples.keys();
            samples.any(|(measured, _)| measured == workload)
        };
        if !self.samples.is_empty() {
            print!("{:<28}", format!("medians of {} rounds", self.rounds));
            for variant in Variant::ALL {
                print!("{:>13}", variant.name());
            }
            println!();
        }
        for workload in Workload::ALL.into_iter().filter(measured) {
            print_row(
                &format!("{}, {}", workload.name(), workload.unit()),
                |variant| {
                    self.median_rate(workload, variant)
                        .map(|rate| workload.format(rate))
                },
            );
            print_row("  × no mesh", |variant| {
                let ratio = self.ratio(workload, variant, Variant::NoMesh)?;
                Some(format!("{ratio:.3}"))
            });
            print_row("  single query, µs", |variant| {
                let latency = self.median_latency(workload, variant)?;
                Some(format!("{latency:.1}"))
            });
            if workload != Workload::Bulk {
                print_row("  agent CPU, µs per request", |variant| {
                    let cpu = self.median_cpu(workload, variant)?;
                    (variant != Variant::Unenrolled).then(|| format!("{cpu:.1}"))
                });
            }
        }
        println!();
        for Target {
            workload,
            variant,
            reference,
            at_least,
        } in &TARGETS
        {
            let Some(ratio) = self.ratio(*workload, *variant, *reference) else {
                continue;
            };
            let what = format!(
                "{}: {} × {}",
                workload.name(),
                variant.name(),
                reference.name()
            );
            print_target(
                &what,
                &format!("{ratio:.3}"),
                &format!("≥ {at_least}"),
                ratio >= *at_least,
            );
        }
        if let Some(memory) = self.idle {
            let what = format!("idle: resident memory with {} pods", idle::PODS);
            let met = memory < IDLE_BELOW;
            print_target(
                &what,
                &format!("{memory:.1} MiB"),
                &format!("< {IDLE_BELOW} MiB"),
                met,
            );
        }
        if let Some(http) = &self.http {
            println!();
            http.print();
        }
        if let Some(pod_sockets) = &self.pod_sockets {
            println!();
            pod_sockets.print();
        }
        if self.disturbance > TOO_MUCH {
            println!(
                "\n{} other processes took {:.0}% of the processors meanwhile; run it again when the \
                 machine is quiet",
                style("distrust this:").yellow().bold(),
                self.disturbance * 100.0
            );
        }
    }

    /// Everything, single measurements included.
    pub fn json(&self) -> Value {
        let measurements: Vec<Value> = self
            .samples
            .iter()
            .map(|((workload, variant), samples)| {
                json!({
                    "workload": workload.name(),
                    "unit": workload.unit(),
                    "variant": variant.name(),
                    "samples": samples.iter().map(|it| it.rate).collect::<Vec<_>>(),
                    "median": self.median_rate(*workload, *variant),
                    "ratioToNoMesh": self.ratio(*workload, *variant, Variant::NoMesh),
                    "singleRequestMicroseconds": self.median_latency(*workload, *variant),
                    "agentCpuMicrosecondsPerRequest": self.median_cpu(*workload, *variant),
                })
            })
            .collect();
        let targets: Vec<Value> = TARGETS
            .iter()
            .filter_map(|it| {
                let ratio = self.ratio(it.workload, it.variant, it.reference)?;
                Some(json!({
                    "workload": it.workload.name(),
                    "variant": it.variant.name(),
                    "reference": it.reference.name(),
                    "ratio": ratio,
                    "atLeast": it.at_least,
                    "met": ratio >= it.at_least,
                }))
            })
            .collect();
        json!({
            "rounds": self.rounds,
            "seconds": self.seconds,
            "http": self.http.as_ref().map(http::Report::json),
            "processors": thread::available_parallelism().map_or(0, usize::from),
            "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "takenByOthers": self.disturbance,
            "measurements": measurements,
            "targets": targets,
            "podSockets": self.pod_sockets.as_ref().map(pod_sockets::Report::json),
            "idle": self.idle.map(|memory| json!({
                "pods": idle::PODS,
                "residentMebibytes": memory,
                "below": IDLE_BELOW,
                "met": memory < IDLE_BELOW,
            })),
        })
    }
}

fn print_row(label: &str, cell: impl Fn(Variant) -> Option<String>) {
    let cells: Vec<Option<String>> = Variant::ALL.into_iter().map(cell).collect();
    if cells.iter().all(Option::is_none) {
        return;
    }
    print!("{label:<28}");
    for cell in cells {
        print!("{:>13}", cell.as_deref().unwrap_or("-"));
    }
    println!();
}

pub fn print_target(what: &str, value: &str, wanted: &str, met: bool) {
    let verdict = if met {
        style("met").green()
    } else {
        style("not met").red().bold()
    };
    println!("{what:<48} {value:>10}   {wanted:<9} {verdict}");
}
