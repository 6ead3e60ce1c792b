//! `cargo xtask bench`: what capture costs. All ways of capturing are measured in turn, several
//! times in one run, because machines are noisy: only ratios within a run mean something.

mod cpu_time;
mod disturbance;
mod dns;
mod http;
mod idle;
mod pod_sockets;
mod report;
mod statistics;
mod variant;
mod workload;

use crate::setup::{self, Purpose};
use crate::{build, workspace};
use anyhow::{Context, Result, bail};
use disturbance::Disturbance;
use http::Subject;
use report::Report;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use variant::{Site, Variant};
use workload::{Measured, Workload};

#[derive(clap::Args)]
pub struct Arguments {
    /// How often everything is measured; medians are taken over the rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many seconds each variant and workload is measured in one round
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only these workloads
    #[arg(long, value_enum)]
    only: Vec<Workload>,
    /// Of HTTP, only the loads whose name in the table has this in it, as "HTTP/2, 64 KiB"
    #[arg(long, default_value = "")]
    load: String,
    /// Of HTTP, only these
    #[arg(long, value_enum)]
    subject: Vec<Subject>,
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
    let site = Site::open(&binary)?;
    let mut report = Report::new(arguments.rounds, arguments.seconds);
    let disturbance = Disturbance::watch(site.lab().cgroup())?;
    let has_paths = workloads.iter().any(|it| it.is_path());
    for round in (1..=arguments.rounds).take_while(|_| has_paths) {
        println!("round {round} of {}", arguments.rounds);
        for workload in workloads.iter().filter(|it| it.is_path()) {
            for (variant, measured) in one_round(&site, *workload, arguments.seconds)? {
                println!(
                    "  {:<12} {:<12} {measured}",
                    workload.name(),
                    variant.name()
                );
                report.add(*workload, variant, measured);
            }
        }
    }
    if workloads.contains(&Workload::Http) {
        let (rounds, seconds) = (arguments.rounds, arguments.seconds);
        report.http = Some(http::run(
            site.lab(),
            &binary,
            rounds,
            seconds,
            &arguments.load,
            &arguments.subject,
        )?);
    }
    if workloads.contains(&Workload::PodSockets) {
        report.pod_sockets = Some(pod_sockets::run(
            &site,
            arguments.rounds,
            arguments.seconds,
        )?);
    }
    report.disturbance = disturbance.share()?;
    if workloads.contains(&Workload::Idle) {
        report.idle = Some(idle::measure(site.lab(), &binary)?);
    }
    site.close()?;

    println!();
    report.print();
    let file = workspace::target_dir()?.join("bench/path.json");
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).context("cannot create the results' directory")?;
    }
    fs::write(&file, format!("{:#}\n", report.json()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("\n{}", file.display());
    Ok(())
}

/// Measures every variant for `seconds`, in slices of one second that take turns: whatever else
/// the machine does then hits all of them alike.
fn one_round(site: &Site, workload: Workload, seconds: u32) -> Result<Vec<(Variant, Measured)>> {
    let mut slices: BTreeMap<Variant, Vec<Measured>> = BTreeMap::new();
    for turn in 0..seconds {
        for variant in Variant::in_turn(workload, turn) {
            let measured = site
                .measure(variant, workload, Duration::from_secs(1))
                .with_context(|| format!("{}, {}", workload.name(), variant.name()))?;
            slices.entry(variant).or_default().push(measured);
        }
    }
    Ok(slices
        .into_iter()
        .filter_map(|(variant, slices)| Some((variant, Measured::together(&slices)?)))
        .collect())
}

impl Arguments {
    fn wants(&self, workload: Workload) -> bool {
        self.only.is_empty() || self.only.contains(&workload)
    }
}
