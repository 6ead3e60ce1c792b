//! The command line: one file per verb.

mod advise;
mod check;
mod connections;
mod destinations;
mod latency;
mod output;
mod pods;
mod run;
mod schema;
mod status;
mod validate;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use output::Output;

/// Where the admin socket is unless the configuration says otherwise.
const DEFAULT_ADMIN_SOCKET: &str = "/run/mesh-agent/admin.sock";

/// Service-mesh data plane without sidecars: one eBPF agent per node.
#[derive(Debug, Parser)]
#[command(name = "mesh-agent", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Capture the traffic of the configured pods and forward it (needs root).
    Run(run::Run),
    /// Can this machine run the agent? Names what is missing and what to do.
    Check(check::Check),
    /// Check a configuration file without applying it.
    Validate(validate::Validate),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// What the running agent is doing.
    Status(Reading),
    /// The pods of the running agent.
    Pods(Reading),
    /// The destinations of the running agent, their servers and what became of requests.
    Destinations(Reading),
    /// Timeouts, breaker and limits for a destination, by what was seen of it: ready to paste.
    Advise(advise::Advise),
    /// Where the time of requests goes.
    Latency(latency::Latency),
    /// The open connections of the running agent.
    Connections(Reading),
}

/// Options of the verbs that ask the running agent.
#[derive(Debug, Args)]
pub struct Reading {
    /// The agent's admin socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    admin_socket: PathBuf,
    /// A table for people, or JSON for programs.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Runs the verb; one clear line on standard error if it fails.
pub fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Run(verb) => verb.run(),
        Verb::Check(verb) => return verb.run(),
        Verb::Validate(verb) => verb.run(),
        Verb::Schema => schema::run(),
        Verb::Status(reading) => status::run(&reading),
        Verb::Pods(reading) => pods::run(&reading),
        Verb::Destinations(reading) => destinations::run(&reading),
        Verb::Advise(verb) => verb.run(),
        Verb::Latency(verb) => verb.run(),
        Verb::Connections(reading) => connections::run(&reading),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
