//! What the policies of the agent do to a thousand clients and a hundred services when something goes wrong, in
//! discrete time and without sockets: the same code as in the agent, with servers and a network that are not
//! there.

#![allow(
    clippy::print_stdout,
    reason = "a command-line tool: standard output is its product"
)]

mod caller;
mod events;
mod measure;
mod plot;
mod report;
mod scenario;
mod server;
mod strategy;
mod world;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use report::Figures;
use scenario::Scenario;
use strategy::Strategy;
use world::World;

/// What the policies do when something goes wrong, in discrete time.
#[derive(Parser)]
struct Arguments {
    /// Where CSV and SVG files go
    #[arg(long)]
    out: Option<PathBuf>,
    /// Requests of each run
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
    /// Only this one: nothing, timeouts, naive-retries or mesh-agent
    #[arg(long, conflicts_with = "out")]
    strategy: Option<String>,
    /// Chance begins here
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(out) = &arguments.out {
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    }
    let named = |it: &Strategy| {
        let only = arguments.strategy.as_deref();
        only.is_none_or(|only| only == it.name())
    };
    let strategies: Vec<Strategy> = Strategy::ALL.into_iter().filter(named).collect();
    ensure!(
        !strategies.is_empty(),
        "--strategy: write nothing, timeouts, naive-retries or mesh-agent"
    );
    println!("{}", report::HEAD);
    let mut broken = Vec::new();
    for scenario in Scenario::ALL {
        let mut runs = Vec::new();
        for &strategy in &strategies {
            let measured = World::new(scenario, strategy, arguments.seed).run(arguments.requests);
            let figures = Figures::of(scenario, &measured);
            println!("{}", report::line(scenario, strategy, &figures));
            if strategy == Strategy::Ours {
                let broken_here = promises(scenario, &figures);
                broken.extend(
                    broken_here
                        .into_iter()
                        .map(|what| format!("{}: {what}", scenario.name())),
                );
            }
            runs.push((strategy, measured));
        }
        if let Some(out) = &arguments.out {
            report::csv(&out.join(format!("{}.csv", scenario.name())), &runs)?;
            plot::draw(
                &out.join(format!("{}.svg", scenario.name())),
                scenario,
                &runs,
            )?;
        }
    }
    ensure!(
        broken.is_empty(),
        "promises that were not kept:\n  {}",
        broken.join("\n  ")
    );
    Ok(())
}

/// What the agent promises, as far as it is not kept.
fn promises(scenario: Scenario, figures: &Figures) -> Vec<String> {
    let mut broken = Vec::new();
    if figures.recovered.is_none_or(|after| after > 10) {
        broken.push(format!("recovered after {:?} s, not 10", figures.recovered));
    }
    if figures.amplification > 1.2 {
        broken.push(format!(
            "{:.2} tries for each request, not 1.2",
            figures.amplification
        ));
    }
    if scenario == Scenario::FlashCrowd {
        let of_capacity = figures.of_capacity.unwrap_or_default();
        if of_capacity < 0.9 {
            broken.push(format!("{of_capacity:.2} of the capacity, not 0.9"));
        }
        if figures.critical < 0.99 {
            broken.push(format!(
                "{:.3} of the critical requests, not 0.99",
                figures.critical
            ));
        }
    }
    broken
}
