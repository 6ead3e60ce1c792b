//! `cargo xtask build`: the agent as tests and demo use it. The kernel half is built by the agent's
//! build script and embedded, so the result is one file.

use crate::progress::{self, Show, Step};
use crate::setup::{self, Purpose};
use crate::workspace;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

/// Runs the verb.
pub fn run() -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let binary = agent("fast")?;
    println!("{}", binary.display());
    Ok(())
}

/// Builds the agent with a profile of Cargo.toml and returns its path. Set-up must be done.
pub fn agent(profile: &str) -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--package", "mesh-agent", "--profile", profile]);
    let step = Step {
        label: &format!("build mesh-agent (profile {profile})"),
        log: "build",
        show: Show::LastLine,
        limit: Duration::from_mins(20),
    };
    progress::run(&step, command)?;
    Ok(workspace::target_dir()?.join(profile).join("mesh-agent"))
}
