//! `cargo xtask test`: everything CI checks, in one go, with a table at the end.

mod documents;
mod leftovers;

use crate::progress::{self, Failure, Show, Step};
use crate::setup::{self, Purpose};
use crate::{build, simulate, vm, workspace};
use anyhow::{Result, bail, ensure};
use console::style;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Leave out the end-to-end tests (the only part that needs root)
    #[arg(long, conflicts_with = "e2e_only")]
    no_e2e: bool,
    /// Only the end-to-end tests
    #[arg(long)]
    e2e_only: bool,
    /// Only tests with this in their name; no lints and no documentation checks then
    filter: Option<String>,
}

/// How one step went.
enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// All steps so far.
#[derive(Default)]
struct Report {
    steps: Vec<(&'static str, Outcome, Duration)>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let end_to_end = !arguments.no_e2e;
    let without_root = end_to_end && !workspace::is_root();
    if arguments.e2e_only && without_root {
        bail!(
            "the end-to-end tests need root; run:\n  {}",
            workspace::as_root("test --e2e-only")
        );
    }
    setup::ensure(if end_to_end && !without_root {
        Purpose::Test
    } else {
        Purpose::Lint
    })?;

    let mut report = Report::default();
    let filter = arguments.filter.as_deref();
    if !arguments.e2e_only && filter.is_none() {
        report.lints();
    }
    let agent = report.agent();
    if !arguments.e2e_only {
        report.command("unit tests", Show::Everything, unit_tests(filter));
        if filter.is_none() {
            report.simulation();
            report.documentation(agent.as_deref());
        }
    }
    if without_root {
        report.without_root();
    } else if end_to_end {
        report.end_to_end(agent.as_deref(), filter);
        if filter.is_none() {
            report.other_kernels(agent.as_deref());
        }
    }
    report.finish(started)
}

impl Report {
    fn lints(&mut self) {
        let mut format = workspace::cargo();
        format.args(["fmt", "--all", "--check"]);
        self.command("formatting", Show::LastLine, format);
        let mut clippy = workspace::cargo();
        clippy
            .args([
                "clippy",
                "--workspace",
                "--exclude=mesh-ebpf",
                "--all-targets",
            ])
            .args(["--", "-D", "warnings"]);
        self.command("lints", Show::LastLine, clippy);
        self.command(
            "lints of the kernel half",
            Show::LastLine,
            kernel_half_lints(),
        );
    }

    fn agent(&mut self) -> Option<PathBuf> {
        let started = Instant::now();
        let built = build::agent("fast");
        if let Err(error) = &built {
            self.print_failure(error);
        }
        self.record("build", started, built.is_ok());
        built.ok()
    }

    /// What docs/resilience.md promises.
    fn simulation(&mut self) {
        let started = Instant::now();
        match simulate::build() {
            Ok(simulation) => {
                let mut command = Command::new(simulation);
                command.args(["--strategy", "mesh-agent"]);
                self.command("simulation", Show::Everything, command);
            }
            Err(error) => {
                self.print_failure(&error);
                self.record("simulation", started, false);
            }
        }
    }

    fn documentation(&mut self, agent: Option<&Path>) {
        let mut doc = workspace::cargo();
        doc.args(["doc", "--workspace", "--exclude=mesh-ebpf", "--no-deps"])
            .args(["--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings");
        self.command("API documentation", Show::LastLine, doc);
        let started = Instant::now();
        let checked = documents::check(agent);
        if let Err(error) = &checked {
            println!("{} documents: {error:#}", style("✗").red().bold());
        }
        self.record("documents", started, checked.is_ok());
    }

    fn end_to_end(&mut self, agent: Option<&Path>, filter: Option<&str>) {
        let Some(agent) = agent else {
            self.skip("end-to-end tests", "the agent was not built");
            return;
        };
        let before = leftovers::find();
        let mut tests = workspace::cargo();
        tests
            .args(["test", "--package", "mesh-tests", "--"])
            .args(filter);
        tests.env("MESH_AGENT_BIN", agent);
        self.command("end-to-end tests", Show::Everything, tests);
        let started = Instant::now();
        let left: Vec<String> = leftovers::find()
            .into_iter()
            .filter(|name| !before.contains(name))
            .collect();
        if !left.is_empty() {
            println!(
                "{} left behind: {}",
                style("✗").red().bold(),
                left.join(", ")
            );
        }
        self.record("nothing left behind", started, left.is_empty());
    }

    fn other_kernels(&mut self, agent: Option<&Path>) {
        let name = "tests on other kernels";
        let Some(agent) = agent else {
            self.skip(name, "the agent was not built");
            return;
        };
        if !cfg!(target_arch = "x86_64") {
            self.skip(name, "only on x86-64");
            return;
        }
        let started = Instant::now();
        let outcome = vm::run_all(agent);
        if let Err(error) = &outcome {
            println!("{} {name}: {error:#}", style("✗").red().bold());
        }
        self.record(name, started, outcome.is_ok());
    }

    fn without_root(&mut self) {
        let how = workspace::as_root("test --e2e-only");
        if workspace::is_ci() {
            println!(
                "{} the end-to-end tests need root, and CI must run them",
                style("✗").red()
            );
            self.record("end-to-end tests", Instant::now(), false);
        } else {
            self.skip("end-to-end tests", &format!("need root: {how}"));
        }
    }

    /// Runs one command as a step. The first failure's output is shown whole.
    fn command(&mut self, name: &'static str, show: Show, command: Command) {
        let started = Instant::now();
        let log = format!("test-{}", name.replace(' ', "-"));
        let step = Step {
            label: name,
            log: &log,
            show,
            limit: Duration::from_mins(20),
        };
        let outcome = progress::run(&step, command);
        if let Err(error) = &outcome
            && show == Show::LastLine
        {
            self.print_failure(error);
        }
        self.record(name, started, outcome.is_ok());
    }

    fn print_failure(&self, error: &anyhow::Error) {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            println!(
                "{}",
                if self.failed() {
                    failure.tail(40)
                } else {
                    failure.output.clone()
                }
            );
        }
        println!("{error:#}");
    }

    fn record(&mut self, name: &'static str, started: Instant, passed: bool) {
        let outcome = if passed {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        self.steps.push((name, outcome, started.elapsed()));
    }

    fn skip(&mut self, name: &'static str, why: &str) {
        self.steps
            .push((name, Outcome::Skipped(why.to_owned()), Duration::ZERO));
    }

    fn failed(&self) -> bool {
        self.steps
            .iter()
            .any(|(_, outcome, _)| matches!(outcome, Outcome::Failed))
    }

    fn finish(&self, started: Instant) -> Result<()> {
        println!();
        for (name, outcome, took) in &self.steps {
            let took = format!("{:.1}s", took.as_secs_f64());
            match outcome {
                Outcome::Passed => println!("{} {name:<26} {took:>8}", style("✓").green()),
                Outcome::Failed => {
                    println!(
                        "{} {name:<26} {took:>8}  {}",
                        style("✗").red(),
                        style("failed").red()
                    );
                }
                Outcome::Skipped(why) => {
                    println!("{} {name:<26} {:>8}  {why}", style("-").yellow(), "-");
                }
            }
        }
        println!(
            "  {:<26} {:>8}",
            "total",
            format!("{:.1}s", started.elapsed().as_secs_f64())
        );
        let failed: Vec<&str> = self
            .steps
            .iter()
            .filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed))
            .map(|(name, _, _)| *name)
            .collect();
        ensure!(!self.steps.is_empty(), "nothing was run");
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

fn unit_tests(filter: Option<&str>) -> Command {
    let mut tests = workspace::cargo();
    // Documentation tests are part of `cargo test` as well.
    tests.args([
        "test",
        "--workspace",
        "--exclude=mesh-ebpf",
        "--exclude=mesh-tests",
        "--",
    ]);
    tests.args(filter);
    tests
}

/// Clippy for the bpf target: the compiler is a stable one, and `core` has to be built for it.
fn kernel_half_lints() -> Command {
    let architecture = env::consts::ARCH;
    let target = if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    };
    let mut clippy = workspace::cargo();
    clippy
        .args([
            "clippy",
            "--package=mesh-ebpf",
            "--release",
            "--target",
            target,
        ])
        .args(["-Z", "build-std=core", "--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "RUSTFLAGS",
            format!("--cfg=bpf_target_arch=\"{architecture}\""),
        );
    clippy
}
