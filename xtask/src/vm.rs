//! `cargo xtask vm`: the end-to-end tests of the kernel half on other kernels, each booted in QEMU under
//! plain emulation, with the programs of this machine around them.

mod kernel_package;
mod machine;
mod root;

use crate::progress::{self, Failure, Show, Step};
use crate::setup::{self, Purpose};
use crate::{build, workspace};
use anyhow::{Context, Result, bail};
use console::style;
use kernel_package::Kernel;
use machine::Machine;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kernels that CI runs: that of Debian 12 and of Debian 13, both with long support.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// One that is too old, and must be told so.
const TOO_OLD: &str = "5.10";

/// The tests that put every hook, helper and map type to use, in both address families; the others
/// test the user half, for which one kernel is as good as another.
const TESTS: &[&str] = &[
    "capture::curl",
    "capture::python",
    "connecting::a_plain",
    "connecting::af_unspec",
    "connecting::an_ipv6",
    "connecting::one_source",
    "connecting::tcp_fast_open",
    "crash::a_bystander",
    "crash::with_closed",
    "dns::one_socket",
    "inbound::captured",
    "inbound::a_socket",
    "inbound::servers_and",
    "inbound::so_they",
    "inbound::without",
    "kernels::",
    "limits::a_full_map",
    "original_dst::",
    "udp::",
    "untouched::excluded",
    "untouched::loopback",
    "verbs::check_says",
];

/// Memory of a machine, MiB.
const MEMORY: u32 = 2048;

#[derive(clap::Args)]
pub struct Arguments {
    /// A series that Debian has a package of, such as 6.1, or the path of a Debian kernel package
    #[arg(long = "kernel", value_name = "SERIES|PATH", default_values_t = KERNELS.map(String::from))]
    kernels: Vec<String>,
    /// Memory of the machine, MiB
    #[arg(long, default_value_t = MEMORY)]
    memory: u32,
    /// Only tests with one of these in their name; by default those of the kernel half
    filters: Vec<String>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Purpose::Vm)?;
    let agent = build::agent("fast")?;
    let filters: Vec<&str> = arguments.filters.iter().map(String::as_str).collect();
    let filters = if filters.is_empty() { TESTS } else { &filters };
    let mut failed = Vec::new();
    let root = root::build(&agent)?;
    for kernel in &arguments.kernels {
        if let Err(error) = on_kernel(kernel, &root, arguments.memory, filters) {
            print_failure(kernel, &error);
            failed.push(kernel.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    Ok(())
}

/// Runs on every kernel that CI does; the errors are printed.
pub fn run_all(agent: &Path) -> Result<()> {
    let root = root::build(agent)?;
    let mut passed = true;
    let runs = KERNELS
        .iter()
        .map(|&kernel| (kernel, TESTS))
        .chain([(TOO_OLD, ["kernels::"].as_slice())]);
    for (kernel, tests) in runs {
        if let Err(error) = on_kernel(kernel, &root, MEMORY, tests) {
            print_failure(kernel, &error);
            passed = false;
        }
    }
    if passed { Ok(()) } else { bail!("see above") }
}

fn on_kernel(name: &str, root: &Path, memory: u32, filters: &[&str]) -> Result<()> {
    let kernel = Kernel::find(name)?;
    let machine = Machine::new(&kernel, root, memory, filters)?;
    let step = Step {
        label: &format!("tests on Linux {}", kernel.release()),
        log: &format!("vm-{}", kernel.release()),
        show: Show::LastLine,
        limit: Duration::from_mins(15),
    };
    let log = workspace::log_file(step.log)?;
    progress::run(&step, machine.command())?;
    let output =
        std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let summary = machine::verdict(&output)
        .with_context(|| format!("the whole output is in {}", log.display()))?;
    println!("  {summary}");
    Ok(())
}

fn print_failure(kernel: &str, error: &anyhow::Error) {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        println!("{}", failure.tail(40));
    }
    println!("{} Linux {kernel}: {error:#}", style("✗").red().bold());
}

/// A directory for what this verb makes.
fn directory() -> Result<PathBuf> {
    let directory = workspace::target_dir()?.join("xtask/vm");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

/// Runs a command that is over soon; its output is the error.
fn quiet(command: &mut std::process::Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
