//! `mesh-agent run --config FILE`.

use std::{io::IsTerminal as _, path::PathBuf};

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::agent;

/// Capture the traffic of the configured pods and forward it.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file. It is watched: a valid change is applied whole, an invalid one not
    /// at all.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

impl Run {
    /// Runs until SIGTERM or SIGINT.
    pub fn run(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_from_env("MESH_AGENT_LOG")
            .unwrap_or_else(|_| EnvFilter::new("info,aya=warn"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init();
        agent::run(&self.config)
    }
}
