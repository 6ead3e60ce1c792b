//! Medians, and the agent against the others.

use super::Subject;
use super::load::{Load, Measured};
use crate::bench::report::print_target;
use crate::bench::statistics::{Estimate, estimate, median};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// All measurements of a run.
pub struct Report {
    subjects: Vec<Subject>,
    loads: Vec<Load>,
    samples: BTreeMap<(Load, Subject), Vec<Measured>>,
    /// The most memory that each has had, in MiB.
    pub memory: BTreeMap<Subject, f64>,
}

/// Most of Envoy's CPU time per request and memory, and least of its requests per second.
const CPU: f64 = 0.6;
const RATE: f64 = 1.5;
const MEMORY: f64 = 0.5;
/// Most of the CPU time per request of one subject, as a multiple of another's.
const COSTS: [(&str, Subject, Subject, f64); 3] = [
    (
        "all policies on: CPU × all off",
        Subject::AgentWithPolicies,
        Subject::Agent,
        1.03,
    ),
    (
        "1 request in 100 stamped: CPU × none",
        Subject::AgentSampled,
        Subject::AgentUnmeasured,
        1.01,
    ),
    (
        "every request stamped: CPU × none",
        Subject::AgentStamped,
        Subject::AgentUnmeasured,
        1.1,
    ),
];

impl Report {
    /// An empty one.
    pub fn new(subjects: Vec<Subject>, loads: Vec<Load>) -> Self {
        Self {
            subjects,
            loads,
            samples: BTreeMap::new(),
            memory: BTreeMap::new(),
        }
    }

    /// Adds one measurement.
    pub fn add(&mut self, subject: Subject, load: Load, measured: Measured) {
        self.samples
            .entry((load, subject))
            .or_default()
            .push(measured);
    }

    fn values(
        &self,
        load: Load,
        subject: Subject,
        of: impl Fn(&Measured) -> Option<f64>,
    ) -> Vec<f64> {
        let samples = self.samples.get(&(load, subject));
        samples.into_iter().flatten().filter_map(of).collect()
    }

    fn median(
        &self,
        load: Load,
        subject: Subject,
        of: impl Fn(&Measured) -> Option<f64>,
    ) -> Option<f64> {
        median(self.values(load, subject, of))
    }

    /// The median of the rounds' ratios of one subject to another.
    fn ratio(
        &self,
        load: Load,
        [one, other]: [Subject; 2],
        of: impl Fn(&Measured) -> Option<f64>,
    ) -> Option<f64> {
        let one = self.values(load, one, &of);
        let other = self.values(load, other, &of);
        let ratios = one.into_iter().zip(other);
        median(ratios.map(|(one, other)| one / other).collect())
    }

    /// The same, of the agent to Envoy.
    fn to_envoy(&self, load: Load, of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        self.ratio(load, [Subject::Agent, Subject::Envoy], of)
    }

    /// The CPU of a request of one subject, as a multiple of another's: of each round the mean over the loads, of which
    /// none counts more for being dearer.
    fn cost(&self, one: Subject, other: Subject) -> Option<Estimate> {
        let loads = self.loads.iter().filter(|load| !load.is_fixed_rate());
        let logarithms: Vec<Vec<f64>> = loads
            .map(|load| {
                let [one, other] = [one, other].map(|it| self.values(*load, it, |it| it.cpu));
                let ratios = one.into_iter().zip(other);
                ratios.map(|(one, other)| (one / other).ln()).collect()
            })
            .collect();
        let rounds = logarithms.iter().map(Vec::len).min()?;
        let mean = |round: usize| {
            let of_round: f64 = logarithms.iter().map(|load| load[round]).sum();
            (of_round / logarithms.len() as f64).exp()
        };
        estimate((0..rounds).map(mean).collect())
    }

    /// Prints medians and how the agent compares.
    pub fn print(&self) {
        print!("{:<44}", "HTTP, medians");
        for subject in &self.subjects {
            print!("{:>12}", subject.name());
        }
        println!();
        for load in self.loads.iter().copied() {
            if load.is_fixed_rate() {
                self.print_row(&format!("{}: p50, µs", load.name()), load, |it| {
                    Some(it.times?.0)
                });
                self.print_row("  p99, µs", load, |it| Some(it.times?.1));
            } else {
                self.print_row(&format!("{}: requests/s", load.name()), load, |it| {
                    Some(it.rate)
                });
                self.print_row("  CPU, µs per request", load, |it| it.cpu);
            }
        }
        print!("{:<44}", "memory at most, MiB");
        for subject in &self.subjects {
            let memory = self
                .memory
                .get(subject)
                .map(|memory| format!("{memory:.1}"));
            print!("{:>12}", memory.as_deref().unwrap_or("-"));
        }
        println!("\n");
        for load in self
            .loads
            .iter()
            .copied()
            .filter(|load| !load.is_fixed_rate())
        {
            if let Some(cpu) = self.to_envoy(load, |it| it.cpu) {
                let what = format!("{}: CPU × Envoy", load.name());
                print_target(&what, &format!("{cpu:.2}"), &format!("≤ {CPU}"), cpu <= CPU);
            }
            if let Some(rate) = self.to_envoy(load, |it| Some(it.rate)) {
                print_target(
                    "  requests/s × Envoy",
                    &format!("{rate:.2}"),
                    &format!("≥ {RATE}"),
                    rate >= RATE,
                );
            }
        }
        for (what, one, other, most) in COSTS {
            if let Some(cost) = self.cost(one, other) {
                let (cost_text, most_text) = (format!("{:.3}", cost.median), format!("≤ {most}"));
                print_target(what, &cost_text, &most_text, cost.median <= most);
                if let Some((from, to)) = cost.interval {
                    println!("  with 95% confidence from {from:.3} to {to:.3}");
                }
            }
        }
        if let Some(memory) = self.memory_to_envoy() {
            print_target(
                "memory × Envoy",
                &format!("{memory:.2}"),
                &format!("≤ {MEMORY}"),
                memory <= MEMORY,
            );
        }
    }

    fn memory_to_envoy(&self) -> Option<f64> {
        Some(self.memory.get(&Subject::Agent)? / self.memory.get(&Subject::Envoy)?)
    }

    fn print_row(&self, label: &str, load: Load, of: impl Fn(&Measured) -> Option<f64>) {
        print!("{label:<44}");
        for subject in &self.subjects {
            let value = self.median(load, *subject, &of);
            let text = value.map(|value| {
                if value < 1000.0 {
                    format!("{value:.1}")
                } else {
                    format!("{value:.0}")
                }
            });
            print!("{:>12}", text.as_deref().unwrap_or("-"));
        }
        println!();
    }

    /// Everything, single measurements included.
    pub fn json(&self) -> Value {
        let measurements: Vec<Value> = self
            .samples
            .iter()
            .map(|((load, subject), samples)| {
                json!({
                    "load": load.name(),
                    "subject": subject.name(),
                    "requestsPerSecond": samples.iter().map(|it| it.rate).collect::<Vec<_>>(),
                    "cpuMicrosecondsPerRequest": samples.iter().map(|it| it.cpu).collect::<Vec<_>>(),
                    "responseTimeP50P99Microseconds": samples.iter().map(|it| it.times).collect::<Vec<_>>(),
                })
            })
            .collect();
        let memory: BTreeMap<&str, f64> = self
            .memory
            .iter()
            .map(|(it, memory)| (it.name(), *memory))
            .collect();
        let costs: Vec<Value> = COSTS
            .iter()
            .filter_map(|&(what, one, other, most)| {
                let Estimate { median, interval } = self.cost(one, other)?;
                Some(json!({"what": what, "ratio": median, "between": interval, "atMost": most}))
            })
            .collect();
        json!({"measurements": measurements, "costs": costs, "peakMemoryMebibytes": memory})
    }
}
