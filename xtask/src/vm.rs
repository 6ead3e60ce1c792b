//! `cargo xtask vm`: the end-to-end tests of the kernel half on other kernels, each booted in QEMU under
//! plain emulation, with the programs of this machine around them.

mod archive;
mod emulator;
mod kernel_package;
mod machine;
mod root;

use crate::progress::{self, Failure, Show, Step};
use crate::setup::{self, Purpose};
use crate::{build, workspace};
use anyhow::{Context, Result, bail, ensure};
use console::style;
use emulator::Emulator;
use kernel_package::{Flavour, Kernel};
use machine::{Machine, Tests};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kernels that CI runs: that of Debian 12 and of Debian 13, both with long support.
const KERNELS: [&str; 2] = [OLDEST, "6.12"];
const OLDEST: &str = "6.1";

/// One that is too old, and must be told so.
const TOO_OLD: &str = "5.10";

/// The kernel that has the driver of the emulated cards, from the smaller of the packages.
const KERNEL_WITH_DRIVERS: &str = OLDEST;

/// The tests that need a network card with a clock.
const CARD_TESTS: &[&str] = &["hardware::"];

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
    // Where bytes are counted from is another before 6.2.
    "latency::lost",
    "latency::shown::the_next_requests",
    "latency::waited_for::requests",
    "limits::a_full_map",
    "original_dst::",
    "pod_sockets::",
    "udp::",
    "untouched::excluded",
    "untouched::loopback",
    "verbs::check_says",
];

/// Of those, what CI runs on kernels between the oldest and its own, which have all: each hook and family once.
const FEWER_TESTS: &[&str] = &[
    "capture::curl",
    "connecting::an_ipv6",
    "crash::a_bystander",
    "dns::one_socket",
    "inbound::a_socket",
    "inbound::captured",
    "inbound::so_they",
    "kernels::",
    "original_dst::",
    "pod_sockets::sockets_that_pass",
    "udp::",
    "untouched::excluded",
];

/// Memory of a machine, MiB.
const MEMORY: u32 = 2048;

/// How long the tests may take on one kernel, minutes.
const LIMIT: u64 = 15;

#[derive(clap::Args)]
pub struct Arguments {
    /// A series that Debian has a package of, such as 6.1, or the path of a Debian kernel package; by
    /// default 6.1 and 6.12, with --card 6.1
    #[arg(long = "kernel", value_name = "SERIES|PATH")]
    kernels: Vec<String>,
    /// Two emulated network cards that give hardware timestamps, and the tests of those
    #[arg(long)]
    card: bool,
    /// Memory of the machine, MiB
    #[arg(long, default_value_t = MEMORY)]
    memory: u32,
    /// A variable of the tests' environment; may be given more than once
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<String>,
    /// How long the tests may take on each kernel, minutes
    #[arg(long, value_name = "MINUTES", default_value_t = LIMIT)]
    limit: u64,
    /// Only tests with one of these in their name; by default those of the kernel half
    filters: Vec<String>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Purpose::Vm)?;
    let agent = build::agent("fast")?;
    let filters: Vec<&str> = arguments.filters.iter().map(String::as_str).collect();
    let (all, kernels) = if arguments.card {
        (CARD_TESTS, vec![KERNEL_WITH_DRIVERS.to_owned()])
    } else {
        (TESTS, KERNELS.map(String::from).to_vec())
    };
    let filters = if filters.is_empty() { all } else { &filters };
    let kernels = if arguments.kernels.is_empty() {
        &kernels
    } else {
        &arguments.kernels
    };
    let mut failed = Vec::new();
    let root = root::build(&agent)?;
    for kernel in kernels {
        let emulator = arguments.card.then(Emulator::with_card).transpose()?;
        let tests = Tests {
            filters,
            environment: &arguments.environment,
        };
        let limit = Duration::from_mins(arguments.limit);
        if let Err(error) = on_kernel(kernel, &root, arguments.memory, &tests, limit, emulator) {
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
    let tests_on = |kernel| {
        if kernel == OLDEST { TESTS } else { FEWER_TESTS }
    };
    let runs = KERNELS
        .iter()
        .map(|&kernel| (kernel, tests_on(kernel)))
        .chain([(TOO_OLD, ["kernels::"].as_slice())]);
    for (kernel, filters) in runs {
        let tests = Tests {
            filters,
            environment: &[],
        };
        let limit = Duration::from_mins(LIMIT);
        if let Err(error) = on_kernel(kernel, &root, MEMORY, &tests, limit, None) {
            print_failure(kernel, &error);
            passed = false;
        }
    }
    match Emulator::with_card() {
        Ok(emulator) => {
            let tests = Tests {
                filters: CARD_TESTS,
                environment: &[],
            };
            let limit = Duration::from_mins(LIMIT);
            let kernel = KERNEL_WITH_DRIVERS;
            if let Err(error) = on_kernel(kernel, &root, MEMORY, &tests, limit, Some(emulator)) {
                print_failure(kernel, &error);
                passed = false;
            }
        }
        Err(error) => {
            println!("  hardware timestamps are not tested: {error:#}");
            // There nobody reads that.
            passed &= !workspace::is_ci();
        }
    }
    if passed { Ok(()) } else { bail!("see above") }
}

fn on_kernel(
    name: &str,
    root: &Path,
    memory: u32,
    tests: &Tests<'_>,
    limit: Duration,
    card: Option<Emulator>,
) -> Result<()> {
    let (flavour, which) = match card {
        Some(_) => (Flavour::Generic, "tests of cards"),
        None => (Flavour::Cloud, "tests"),
    };
    let kernel = Kernel::find(name, flavour)?;
    let machine = Machine::new(&kernel, root, memory, tests, card)?;
    let step = Step {
        label: &format!("{which} on Linux {}", kernel.release()),
        log: &format!("vm-{}", kernel.release()),
        show: Show::LastLine,
        limit,
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

/// `NAME=VALUE` as a shell takes it for a variable.
fn variable(text: &str) -> Result<String> {
    let name = text.split_once('=').map_or("", |(name, _)| name);
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    ensure!(
        is_name && !text.contains('\n'),
        "write it as NAME=VALUE, in one line"
    );
    Ok(text.to_owned())
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
