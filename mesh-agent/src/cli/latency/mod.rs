//! `mesh-agent latency`.

mod nothing;
mod pod_sockets;
mod text;

use clap::Args;

pub(super) use self::text::{Style, bar};
use super::{Output, Reading, output, unknown};
use crate::admin::{
    client,
    latency::{Latency as Answer, Measured, Served},
    model::Destination,
};

/// Where the time of measured requests went: in the mesh, in the network, in the server.
#[derive(Debug, Args)]
#[command(after_help = "\
The bars split the time of a typical request (p50) and of a slow one (p99) into its stages, in the order of its
way: client (until it had sent the request, and read the answer), queue (ready to be read, until the agent read
it), mesh (the agent and the kernel below it), retries, connect, network (to the server and back), server, and
transfer (from the answer's first byte to its last). SHARE is of the time at p50. Stages at p99 are not those
of one request: each is what 99 of 100 requests took at most. The round trip is the kernel's smoothed one: where
acknowledgements wait for the answer, the server's time is in it; the network stage is without that.")]
pub struct Latency {
    /// The name of a destination: also by pod and server. Without it, all destinations
    destination: Option<String>,
    /// Since the agent started, not only the last half to whole minute
    #[arg(long)]
    since_start: bool,
    /// Instead: what the kernel measured of the pods' own sockets (`latency.podSockets`)
    #[arg(long, conflicts_with_all = ["destination", "since_start"])]
    pod_sockets: bool,
    #[command(flatten)]
    reading: Reading,
}

/// Which of the figures are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    Recent,
    SinceStart,
}

impl Span {
    const fn of(self, measured: &Measured) -> &Served {
        match self {
            Self::Recent => &measured.recent,
            Self::SinceStart => &measured.since_start,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Recent => "in the last half to whole minute",
            Self::SinceStart => "since the agent started",
        }
    }
}

impl Latency {
    /// Prints where time went.
    pub fn run(&self) -> anyhow::Result<()> {
        if self.pod_sockets {
            return pod_sockets::run(&self.reading);
        }
        let socket = &self.reading.admin_socket;
        let mut answer: Answer = client::get(socket, "/latency")?;
        if let Some(name) = &self.destination {
            self.ensure_known(name, &answer)?;
            answer.destinations.retain(|it| it.destination == *name);
            answer.series.retain(|it| it.destination == *name);
        }
        if self.reading.output == Output::Json {
            return Ok(output::json(&answer)?);
        }
        let span = if self.since_start {
            Span::SinceStart
        } else {
            Span::Recent
        };
        let name = self.destination.as_deref();
        let text = nothing::why(&answer, name, span).unwrap_or_else(|| {
            text::all(&answer, span, name.is_some(), Style::of_standard_output())
        });
        Ok(output::line(&text)?)
    }

    /// One that was never measured is known all the same.
    fn ensure_known(&self, name: &str, answer: &Answer) -> anyhow::Result<()> {
        let measured = answer.destinations.iter().map(|it| it.destination.clone());
        let mut known: Vec<String> = measured.collect();
        if known.iter().any(|it| it == name) {
            return Ok(());
        }
        let all: Vec<Destination> = client::get(&self.reading.admin_socket, "/destinations")?;
        known.extend(all.into_iter().map(|it| it.name));
        unknown::ensure_known("destination", name, known)
    }
}
