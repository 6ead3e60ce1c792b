//! `mesh-agent latency`.

mod pod_sockets;

use super::Reading;

/// Where the time of requests goes.
#[derive(Debug, clap::Args)]
pub struct Latency {
    /// What the kernel measured of the pods' own sockets (`latency.podSockets`).
    #[arg(long, required = true)]
    pod_sockets: bool,
    #[command(flatten)]
    reading: Reading,
}

impl Latency {
    /// Prints it.
    pub fn run(&self) -> anyhow::Result<()> {
        pod_sockets::run(&self.reading)
    }
}
