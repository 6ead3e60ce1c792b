//! What it costs to measure pods' own sockets (`latency.podSockets`), of a pod whose connections do not
//! go through the agent. Beside each other: not at all, round trips, and stamps as well. What counts is the
//! processor time of clients, servers and agent for a request, which other programs on the machine do not
//! change as they change rates.

use super::statistics::median;
use super::variant::{Site, Variant};
use super::workload::Workload;
use crate::lab::{self, Agent, PodEntry};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What is measured, the reference first.
const MEASURED: [&str; 3] = ["off", "rtt", "stamps"];

const LOADS: [Workload; 3] = [Workload::KeepAlive, Workload::Connects, Workload::Bulk];

/// What came of one turn.
#[derive(Clone, Copy)]
struct Slice {
    /// In the load's unit.
    rate: f64,
    /// Processor time for one of what the rate counts, in microseconds.
    cost: f64,
}

/// By load and what is measured, one for each turn.
pub struct Report(BTreeMap<(Workload, &'static str), Vec<Slice>>);

/// Measures for `seconds` in each of the rounds, in slices of one second that take turns.
pub fn run(site: &Site, rounds: u32, seconds: u32) -> Result<Report> {
    let mut slices: BTreeMap<_, Vec<Slice>> = BTreeMap::new();
    for turn in 0..rounds * seconds {
        for load in LOADS {
            // Forwards, backwards, and so on: a machine that gets slower or faster favours none.
            let mut order = MEASURED;
            if turn % 2 == 1 {
                order.reverse();
            }
            for measured in order {
                let taken = slice(site, load, measured)
                    .with_context(|| format!("pod sockets, {measured}, {}", load.name()))?;
                slices.entry((load, measured)).or_default().push(taken);
            }
        }
        if (turn + 1) % seconds == 0 {
            println!("pod sockets: round {} of {rounds}", (turn + 1) / seconds);
        }
    }
    Ok(Report(slices))
}

/// One second of a load.
fn slice(site: &Site, load: Workload, measured: &str) -> Result<Slice> {
    let lab = site.lab();
    let client = site.client(Variant::Agent)?;
    let pods = [client, site.server()]
        .map(|pod| PodEntry::of(pod, &["capture: {outbound: false, dns: false}"]));
    let configuration =
        lab::configuration(lab, &pods) + &format!("latency: {{podSockets: {measured}}}\n");
    let agent = Agent::start(lab, site.binary(), &configuration)?;
    let second = Duration::from_secs(1);
    let before = processor_time(lab.cgroup())?;
    let rate = load.run(lab, client, site.server(), None, second)?.rate;
    let spent = processor_time(lab.cgroup())? - before;
    check(&agent, measured)?;
    let (status, log, _) = agent.terminate()?;
    ensure!(status.success(), "the agent ended with {status}:\n{log}");
    Ok(Slice {
        rate,
        cost: spent / (rate * second.as_secs_f64()),
    })
}

/// Processor time of all programs of the lab, in microseconds. cgroup v2 counts it without its controller.
fn processor_time(cgroup: &Path) -> Result<f64> {
    let text = fs::read_to_string(cgroup.join("cpu.stat")).context("cannot read cpu.stat")?;
    text.lines()
        .find_map(|line| line.strip_prefix("usage_usec "))
        .and_then(|time| time.parse().ok())
        .context("no usage_usec in cpu.stat")
}

/// A measurement of something else would be worse than none.
fn check(agent: &Agent, measured: &str) -> Result<()> {
    let status = agent.status()?;
    ensure!(
        status["podSockets"]["measured"] == measured,
        "not measured as asked: {}",
        status["podSockets"]
    );
    ensure!(
        status["connections"]["total"] == 0,
        "connections went through the agent"
    );
    if measured == "off" {
        return Ok(());
    }
    let mut ask = agent.ask("latency");
    let output = ask.args(["--pod-sockets", "--output", "json"]).output()?;
    let found: Value = serde_json::from_slice(&output.stdout).context("no pod sockets")?;
    let samples = |what: &str| -> u64 {
        let sockets = found["sockets"].as_array().into_iter().flatten();
        sockets.filter_map(|it| it[what]["samples"].as_u64()).sum()
    };
    ensure!(samples("roundTrip") > 0, "nothing was measured: {found}");
    ensure!(
        measured != "stamps" || samples("toAcknowledged") > 0,
        "nothing was stamped: {found}"
    );
    Ok(())
}

impl Report {
    fn all(&self, load: Workload, measured: &'static str, of: fn(&Slice) -> f64) -> Vec<f64> {
        let slices = self.0.get(&(load, measured)).into_iter().flatten();
        slices.map(of).collect()
    }

    /// Rate, processor time, and that to what it is if nothing is measured: medians of the turns.
    fn medians(&self, load: Workload, measured: &'static str) -> Option<(f64, f64, f64)> {
        let costs = self.all(load, measured, |it| it.cost);
        let without = self.all(load, MEASURED[0], |it| it.cost);
        let ratios = costs.iter().zip(&without).map(|(of, to)| of / to).collect();
        let rate = median(self.all(load, measured, |it| it.rate))?;
        Some((rate, median(costs)?, median(ratios)?))
    }

    /// Prints rates, processor times and ratios.
    pub fn print(&self) {
        println!(
            "{:<28}{:>30}{:>30}{:>30}",
            "pod sockets", MEASURED[0], MEASURED[1], MEASURED[2]
        );
        for load in LOADS {
            print!("{:<28}", format!("{}, {}", load.name(), load.unit()));
            for measured in MEASURED {
                let cell = self.medians(load, measured);
                let cell = cell.map(|(rate, cost, ratio)| {
                    let unit = if load == Workload::Bulk { "ms" } else { "µs" };
                    let cost = if load == Workload::Bulk {
                        cost / 1e3
                    } else {
                        cost
                    };
                    format!("{}, {cost:.2} {unit} (× {ratio:.3})", load.format(rate))
                });
                print!("{:>30}", cell.unwrap_or_default());
            }
            println!();
        }
    }

    /// All of it: processor times in microseconds.
    pub fn json(&self) -> Value {
        let loads = LOADS.into_iter().map(|load| {
            let slices = MEASURED.map(|measured| {
                let rates = self.all(load, measured, |it| it.rate);
                let costs = self.all(load, measured, |it| it.cost);
                (measured, json!({"rate": rates, "processorTime": costs}))
            });
            (load.name(), Value::from_iter(slices))
        });
        loads.collect()
    }
}
