//! Everything a developer or CI does with mesh-agent: `cargo xtask <verb>`. One file per verb.

#![allow(
    clippy::print_stdout,
    reason = "a command-line tool: standard output is its product"
)]

mod bench;
mod build;
mod debian;
mod demo;
mod interrupt;
mod lab;
mod progress;
mod rustup;
mod setup;
mod simulate;
mod test;
mod vm;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, build, demo, tests and benchmarks of mesh-agent"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing: Rust components, bpf-linker, bpffs, Debian packages
    Setup(setup::Arguments),
    /// Build the agent (profile `fast`), kernel half included
    Build,
    /// Show outbound capture between three pods, from the maps (root; cleans up after itself)
    Demo,
    /// Formatting, lints, unit tests, docs, then the end-to-end tests (those need root)
    Test(test::Arguments),
    /// The kernel half's tests on other kernels, in QEMU under plain emulation
    Vm(vm::Arguments),
    /// What the policies do when something goes wrong, in discrete time: table, CSV and SVG
    Simulate(simulate::Arguments),
    /// Compare no mesh, the agent, and iptables REDIRECT to the same agent (root)
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let verb = Arguments::parse().verb;
    let outcome = interrupt::install().and_then(|()| match verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Build => build::run(),
        Verb::Demo => demo::run(),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Vm(arguments) => vm::run(&arguments),
        Verb::Simulate(arguments) => simulate::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
    });
    // A Ctrl-C kills what the verb was waiting for: its error is then only an echo of that.
    interrupt::wait_if_stopping();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "{} {error:#}",
                console::style("error:").red().bold().for_stderr()
            );
            ExitCode::FAILURE
        }
    }
}
