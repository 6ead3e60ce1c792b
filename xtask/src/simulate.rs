//! `cargo xtask simulate`: what the policies do when something goes wrong, in discrete time.

use crate::progress::{self, Show, Step};
use crate::setup::{self, Purpose};
use crate::workspace;
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Arguments {
    /// For the simulation itself, such as `--seed 2` or `--requests 200000`
    #[arg(last = true)]
    more: Vec<String>,
}

/// Runs the verb: prints the table, and writes CSV and SVG files below `docs/resilience`.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let out = workspace::root().join("docs").join("resilience");
    let mut simulation = Command::new(build()?);
    simulation.arg("--out").arg(&out).args(&arguments.more);
    // A table that grows line by line is its own progress.
    let ended = simulation.status()?;
    ensure!(ended.success(), "the simulation ended with {ended}");
    println!("written below {}", out.display());
    Ok(())
}

/// Builds the simulation and returns its path. Set-up must be done.
pub fn build() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--package", "mesh-simulation", "--profile", "fast"]);
    let step = Step {
        label: "build the simulation",
        log: "build-simulation",
        show: Show::LastLine,
        limit: Duration::from_mins(20),
    };
    progress::run(&step, command)?;
    Ok(workspace::target_dir()?
        .join("fast")
        .join("mesh-simulation"))
}
