//! `cargo xtask bench`: what capture costs. All ways of capturing are measured in turn, several
//! times in one run, because machines are noisy: only ratios within a run mean something.

mod idle;
mod report;
mod variant;
mod workload;

use crate::setup::{self, Purpose};
use crate::{build, workspace};
use anyhow::{Context, Result, bail};
use report::Report;
use std::fs;
use std::time::Duration;
use variant::{Site, Variant};
use workload::Workload;

#[derive(clap::Args)]
pub struct Arguments {
    /// How often everything is measured; medians are taken over the rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long one measurement lasts, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Only these workloads
    #[arg(long, value_enum)]
    only: Vec<Workload>,
    /// Build the agent as it is shipped (profile `release`: slower to build)
    #[arg(long)]
    release: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    if !workspace::is_root() {
        bail!(
            "the benchmarks make network namespaces and load programs, which needs root; run:\n  {}",
            workspace::as_root("bench")
        );
    }
    setup::ensure(Purpose::Bench)?;
    let binary = build::agent(if arguments.release { "release" } else { "fast" })?;
    let workloads: Vec<Workload> = Workload::ALL
        .into_iter()
        .filter(|it| arguments.wants(*it))
        .collect();
    let duration = Duration::from_secs(arguments.seconds);
    let site = Site::open(&binary)?;
    let mut report = Report::new(arguments.rounds, duration);

    for round in 1..=arguments.rounds {
        println!("round {round} of {}", arguments.rounds);
        for workload in workloads.iter().filter(|it| it.is_path()) {
            for variant in Variant::in_round(round) {
                let measured = site
                    .measure(variant, *workload, duration)
                    .with_context(|| format!("{}, {}", workload.name(), variant.name()))?;
                println!(
                    "  {:<12} {:<12} {measured}",
                    workload.name(),
                    variant.name()
                );
                report.add(*workload, variant, measured);
            }
        }
    }
    if workloads.contains(&Workload::Idle) {
        report.idle = Some(idle::measure(site.lab(), &binary)?);
    }
    site.close()?;

    println!();
    report.print();
    let file = workspace::target_dir()?.join("bench/outbound-tcp.json");
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).context("cannot create the results' directory")?;
    }
    fs::write(&file, format!("{:#}\n", report.json()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("\n{}", file.display());
    Ok(())
}

impl Arguments {
    fn wants(&self, workload: Workload) -> bool {
        self.only.is_empty() || self.only.contains(&workload)
    }
}
