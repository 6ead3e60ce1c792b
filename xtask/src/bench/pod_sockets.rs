//! What it costs to measure pods' own sockets (`latency.podSockets`), of a pod whose connections do not
//! go through the agent. Beside each other: not at all, round trips, and stamps as well.

use super::report::median;
use super::variant::{Site, Variant};
use super::workload::Workload;
use crate::lab::{self, Agent, PodEntry};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is measured, the reference first.
const MEASURED: [&str; 3] = ["off", "rtt", "stamps"];

const LOADS: [Workload; 3] = [Workload::KeepAlive, Workload::Connects, Workload::Bulk];

/// Rates of each load by what is measured, one for each turn.
pub struct Report(BTreeMap<(Workload, &'static str), Vec<f64>>);

/// Measures for `seconds` in each of the rounds, in slices of one second that take turns.
pub fn run(site: &Site, rounds: u32, seconds: u32) -> Result<Report> {
    let mut rates: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for turn in 0..rounds * seconds {
        for load in LOADS {
            // Forwards, backwards, and so on: a machine that gets slower or faster favours none.
            let mut order = MEASURED;
            if turn % 2 == 1 {
                order.reverse();
            }
            for measured in order {
                let rate = slice(site, load, measured)
                    .with_context(|| format!("pod sockets, {measured}, {}", load.name()))?;
                rates.entry((load, measured)).or_default().push(rate);
            }
        }
        if (turn + 1) % seconds == 0 {
            println!("pod sockets: round {} of {rounds}", (turn + 1) / seconds);
        }
    }
    Ok(Report(rates))
}

/// One second of a load.
fn slice(site: &Site, load: Workload, measured: &str) -> Result<f64> {
    let lab = site.lab();
    let client = site.client(Variant::Agent)?;
    let pods = [client, site.server()]
        .map(|pod| PodEntry::of(pod, &["capture: {outbound: false, dns: false}"]));
    let configuration =
        lab::configuration(lab, &pods) + &format!("latency: {{podSockets: {measured}}}\n");
    let agent = Agent::start(lab, site.binary(), &configuration)?;
    let second = Duration::from_secs(1);
    let rate = load.run(lab, client, site.server(), None, second)?.rate;
    check(&agent, measured)?;
    let (status, log, _) = agent.terminate()?;
    ensure!(status.success(), "the agent ended with {status}:\n{log}");
    Ok(rate)
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
    fn rates(&self, load: Workload, measured: &'static str) -> &[f64] {
        self.0.get(&(load, measured)).map_or(&[], Vec::as_slice)
    }

    /// The median of the turns' ratios to what is not measured, and of the rates.
    fn ratio_and_rate(&self, load: Workload, measured: &'static str) -> Option<(f64, f64)> {
        let (of, to) = (self.rates(load, measured), self.rates(load, MEASURED[0]));
        let ratios = of.iter().zip(to).map(|(of, to)| of / to).collect();
        Some((median(ratios)?, median(of.to_vec())?))
    }

    /// Prints rates and ratios.
    pub fn print(&self) {
        println!(
            "{:<28}{:>18}{:>18}{:>18}",
            "pod sockets", MEASURED[0], MEASURED[1], MEASURED[2]
        );
        for load in LOADS {
            print!("{:<28}", format!("{}, {}", load.name(), load.unit()));
            for measured in MEASURED {
                let cell = self.ratio_and_rate(load, measured);
                let cell = cell.map(|(ratio, rate)| format!("{} ({ratio:.3})", load.format(rate)));
                print!("{:>18}", cell.unwrap_or_default());
            }
            println!();
        }
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let loads = LOADS.into_iter().map(|load| {
            let rates = MEASURED.map(|measured| (measured, json!(self.rates(load, measured))));
            (load.name(), Value::from_iter(rates))
        });
        loads.collect()
    }
}
