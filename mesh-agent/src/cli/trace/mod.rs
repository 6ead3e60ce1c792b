//! `mesh-agent trace`.

mod waterfall;

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;

use super::{Output, Reading, latency::Style, output, unknown};
use crate::{
    admin::{
        client::{self, encoded},
        latency::{Latency, Trace as Request},
        model::{Destination, Pod},
    },
    proxy::DNS_DESTINATION,
};

/// How often it is looked whether requests came that are waited for.
const EVERY: Duration = Duration::from_millis(200);
/// Most requests that the agent remembers.
const MOST: i64 = 1024;

/// Single requests, each with its stamps as a waterfall.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is a stamp: when it was, a bar from the one before, what happened, and who says so: hardware (the
network card), software (the kernel, at the device), scheduled (the kernel, before the device's queue) or clock
(the agent's own, after the system call). The requests are those that were measured (`latency.sample`); --next
measures the next ones whatever is configured.")]
pub struct Trace {
    /// Only of this pod
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// Only to this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// The last N requests that were measured
    #[arg(short = 'n', value_name = "N", default_value_t = 20, conflicts_with = "next",
          value_parser = clap::value_parser!(u32).range(1..=MOST))]
    count: u32,
    /// The next N requests: they are measured, and waited for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    next: Option<u32>,
    /// How long the next requests are waited for
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "next",
          value_parser = humantime::parse_duration)]
    wait: Duration,
    #[command(flatten)]
    reading: Reading,
}

impl Trace {
    /// Prints the requests, the oldest first.
    pub fn run(&self) -> anyhow::Result<()> {
        self.ensure_known()?;
        let mut requests = match self.next {
            Some(count) => self.wait_for(count)?,
            None => self.ask(self.count, "")?,
        };
        // The last one stands where one looks first: above the prompt.
        requests.reverse();
        if self.reading.output == Output::Json {
            return Ok(output::json(&requests)?);
        }
        if requests.is_empty() {
            return Ok(output::line(
                "no such request was measured: --next N measures the next ones, whatever `latency.sample` is",
            )?);
        }
        let is_terminal = io::stdout().is_terminal();
        let width = ratatui::crossterm::terminal::size().map_or(0, |(width, _)| width);
        let width = if is_terminal { usize::from(width) } else { 0 };
        for request in &requests {
            let text = waterfall::text(request, width, Style::of_standard_output());
            output::line(&text)?;
        }
        Ok(())
    }

    fn socket(&self) -> &Path {
        &self.reading.admin_socket
    }

    fn ensure_known(&self) -> anyhow::Result<()> {
        if let Some(name) = &self.pod {
            let all: Vec<Pod> = client::get(self.socket(), "/pods")?;
            unknown::ensure_known("pod", name, all.into_iter().map(|it| it.name))?;
        }
        if let Some(name) = &self.destination {
            let all: Vec<Destination> = client::get(self.socket(), "/destinations")?;
            // Not everything that is measured is one: DNS is not.
            let measured: Latency = client::get(self.socket(), "/latency")?;
            let measured = measured.destinations.into_iter().map(|it| it.destination);
            let all = all.into_iter().map(|it| it.name).chain(measured);
            let all = all.chain([DNS_DESTINATION.to_owned()]);
            unknown::ensure_known("destination", name, all)?;
        }
        Ok(())
    }

    /// The last `count` requests, the newest first. `more` is said to the agent, too.
    fn ask(&self, count: u32, more: &str) -> anyhow::Result<Vec<Request>> {
        let mut path = format!("/traces?n={count}{more}");
        for (name, value) in [("pod", &self.pod), ("destination", &self.destination)] {
            if let Some(value) = value {
                let _infallible = write!(path, "&{name}={}", encoded(value));
            }
        }
        client::get(self.socket(), &path)
    }

    /// The first `count` requests that end from now on, the newest first.
    fn wait_for(&self, count: u32) -> anyhow::Result<Vec<Request>> {
        let says = io::stderr().is_terminal();
        let which = |it: &Request| (it.began.to_bits(), it.path.clone());
        // Requests of all pods to a destination are measured, in the order in which they come: of one pod's it is not
        // known which those are.
        let (next, more) = if self.pod.is_some() {
            (MOST as u32, format!("&next={MOST}"))
        } else {
            (count, "&waiting=true".to_owned())
        };
        let before = self.ask(MOST as u32, &format!("&next={next}"))?;
        let before: HashSet<_> = before.iter().map(which).collect();
        let until = Instant::now() + self.wait;
        loop {
            thread::sleep(EVERY);
            let mut fresh = self.ask(MOST as u32, &more)?;
            fresh.retain(|it| !before.contains(&which(it)));
            if says {
                // Only to be seen: nothing is lost with it.
                let _seen = write!(io::stderr(), "\r{} of {count} requests", fresh.len());
            }
            let enough = fresh.len() >= count as usize;
            if enough || Instant::now() >= until {
                if says {
                    let _seen = writeln!(io::stderr());
                }
                let first = fresh.len().saturating_sub(count as usize);
                if fresh.is_empty() {
                    bail!(
                        "none of the next {count} requests came within {:?}: is there HTTP traffic to it, or \
                         are there DNS queries \
                         (see `mesh-agent destinations`)? --wait waits longer",
                        self.wait
                    );
                }
                return Ok(fresh.split_off(first));
            }
        }
    }
}
