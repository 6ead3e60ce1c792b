//! `cargo xtask setup`: finds what is missing on a machine that has only rustup's toolchains and
//! Debian's packages, says so, and installs it. A second run changes nothing.

use crate::{debian, rustup, workspace};
use anyhow::{Context, Result, bail};
use console::style;
use std::fs;
use std::process::Command;

/// What the machine is to be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// `cargo xtask build`
    Build,
    /// `cargo xtask demo`
    Demo,
    /// `cargo xtask test --no-e2e`
    Lint,
    /// `cargo xtask test`
    Test,
    /// `cargo xtask vm`
    Vm,
    /// `cargo xtask bench`
    Bench,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Demo => "demo",
            Self::Lint => "lint",
            Self::Test => "test",
            Self::Vm => "vm",
            Self::Bench => "bench",
        }
    }

    fn lints(self) -> bool {
        matches!(self, Self::Lint | Self::Test)
    }

    /// Whether programs are loaded and pinned.
    fn runs_agent(self) -> bool {
        matches!(self, Self::Demo | Self::Test | Self::Bench)
    }
}

#[derive(clap::Args)]
pub struct Arguments {
    /// Only say what is missing; exit code 1 when something is
    #[arg(long)]
    check: bool,
    /// What the machine is to be ready for
    #[arg(long = "for", value_enum, value_name = "VERB",
          default_values_t = [Purpose::Build, Purpose::Demo, Purpose::Test])]
    purposes: Vec<Purpose>,
}

/// Something the machine lacks, and how to add it.
pub struct Missing {
    /// Its name.
    pub what: String,
    /// What it is needed for.
    pub why: String,
    /// The command with which a user adds it.
    pub by_hand: String,
    /// Whether that command needs root.
    pub needs_root: bool,
    /// Adds it.
    pub install: Box<dyn FnOnce() -> Result<()>>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.check {
        return arguments
            .purposes
            .iter()
            .try_for_each(|purpose| ensure(*purpose));
    }
    let mut complete = true;
    for purpose in &arguments.purposes {
        let missing = missing(*purpose)?;
        complete &= missing.is_empty();
        if missing.is_empty() {
            println!(
                "{} {}: everything is there",
                style("✓").green(),
                purpose.name()
            );
        }
        for item in missing {
            print_missing(*purpose, &item);
            println!("    {}", item.by_hand);
        }
    }
    if !complete {
        bail!("set-up is not complete; `cargo xtask setup` adds what is missing");
    }
    Ok(())
}

/// Makes the machine ready for `purpose`. Says nothing when it is.
pub fn ensure(purpose: Purpose) -> Result<()> {
    let missing = missing(purpose)?;
    if missing.is_empty() {
        println!(
            "{} set-up for {}: everything is there",
            style("✓").green(),
            purpose.name()
        );
        return Ok(());
    }
    let mut for_root = Vec::new();
    for item in missing {
        print_missing(purpose, &item);
        if item.needs_root && !workspace::is_root() {
            for_root.push(item.by_hand);
            continue;
        }
        println!("  $ {}", item.by_hand);
        (item.install)()
            .with_context(|| format!("cannot add {}; by hand: {}", item.what, item.by_hand))?;
    }
    if !for_root.is_empty() {
        let commands: Vec<String> = for_root
            .iter()
            .map(|command| format!("  sudo sh -c '{command}'"))
            .collect();
        bail!(
            "the rest of the set-up needs root; run:\n{}",
            commands.join("\n")
        );
    }
    Ok(())
}

fn print_missing(purpose: Purpose, item: &Missing) {
    println!(
        "{} {} needs {} ({})",
        style("+").yellow(),
        purpose.name(),
        item.what,
        item.why
    );
}

fn missing(purpose: Purpose) -> Result<Vec<Missing>> {
    let mut components = vec![rustup::RUST_SRC];
    if purpose.lints() {
        components.extend(rustup::LINTS);
    }
    let mut missing = rustup::missing_components(&components)?;
    missing.extend(rustup::missing_bpf_linker()?);
    missing.extend(debian::missing_packages(purpose));
    if purpose.runs_agent() {
        missing.extend(missing_bpffs()?);
    }
    Ok(missing)
}

const BPFFS: &str = "/sys/fs/bpf";

/// A bpffs, which keeps programs and maps when the agent ends.
fn missing_bpffs() -> Result<Option<Missing>> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let mounted = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    });
    if mounted {
        return Ok(None);
    }
    let command = format!("mount -t bpf bpf {BPFFS}");
    Ok(Some(Missing {
        what: format!("a bpffs at {BPFFS}"),
        why: "holds the pinned maps".to_owned(),
        by_hand: command,
        needs_root: true,
        install: Box::new(|| {
            let output = Command::new("mount")
                .args(["-t", "bpf", "bpf", BPFFS])
                .output()
                .context("cannot start mount")?;
            anyhow::ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            Ok(())
        }),
    }))
}
