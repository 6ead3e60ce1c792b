//! The Rust side of set-up: components of the pinned toolchain, and bpf-linker.

use crate::progress::{self, Show, Step};
use crate::setup::Missing;
use crate::workspace;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The linker of the kernel half. 0.10 is the last series that needs no system LLVM: it uses the
/// one inside the Rust toolchain, so the feature below follows the pinned compiler's LLVM version.
const BPF_LINKER: &str = "0.10.3";
const BPF_LINKER_FEATURE: &str = "rust-llvm-22";

/// The component that holds the source of `core`, which has no prebuilt form for the bpf target.
pub const RUST_SRC: (&str, &str) = ("rust-src", "builds `core` for the kernel half");
/// The components for the lints.
pub const LINTS: [(&str, &str); 2] = [("clippy", "lints"), ("rustfmt", "checks formatting")];

/// Those of `wanted` that the pinned toolchain lacks.
pub fn missing_components(wanted: &[(&str, &str)]) -> Result<Vec<Missing>> {
    let toolchain = workspace::pinned_toolchain()?;
    let output = rustup(&["component", "list", "--installed", "--toolchain", toolchain])
        .output()
        .context("cannot start rustup; install it from https://rustup.rs")?;
    if !output.status.success() {
        anyhow::bail!(
            "rustup does not have toolchain {toolchain}; run: rustup toolchain install {toolchain} \
             ({})",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let installed = String::from_utf8_lossy(&output.stdout);
    let has = |name: &str| {
        // Lines read `rust-src` or `clippy-x86_64-unknown-linux-gnu`.
        installed.lines().any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    };
    Ok(wanted
        .iter()
        .filter(|(name, _)| !has(name))
        .map(|(name, why)| {
            let arguments = ["component", "add", *name, "--toolchain", toolchain];
            Missing {
                what: format!("Rust component {name}"),
                why: (*why).to_owned(),
                by_hand: format!("rustup {}", arguments.join(" ")),
                needs_root: false,
                install: {
                    let (command, name) = (rustup(&arguments), (*name).to_owned());
                    Box::new(move || install(&name, command))
                },
            }
        })
        .collect())
}

/// What to do when there is no bpf-linker of the pinned version.
pub fn missing_bpf_linker() -> Result<Option<Missing>> {
    if installed_bpf_linker().is_some_and(|version| version == BPF_LINKER) {
        return Ok(None);
    }
    let package = format!("bpf-linker@{BPF_LINKER}");
    let mut arguments = vec![
        "install".to_owned(),
        package,
        "--no-default-features".to_owned(),
        format!("--features={BPF_LINKER_FEATURE}"),
        "--locked".to_owned(),
    ];
    let mut why = "links the kernel half".to_owned();
    if let Some(version) = installed_bpf_linker() {
        // Another project may need the user's own version: leave it, and keep ours apart.
        arguments.push(format!("--root={}", workspace::own_tools()?.display()));
        why = format!("{why}; yours is {version} and stays as it is");
    }
    let mut command = workspace::cargo();
    command.args(&arguments);
    Ok(Some(Missing {
        what: format!("bpf-linker {BPF_LINKER}"),
        why,
        by_hand: format!("cargo {}", arguments.join(" ")),
        needs_root: false,
        install: Box::new(move || {
            install("bpf-linker", command)?;
            let found = installed_bpf_linker().unwrap_or_else(|| "none".to_owned());
            anyhow::ensure!(
                found == BPF_LINKER,
                "installed bpf-linker {BPF_LINKER}, but the one found on PATH is: {found}"
            );
            Ok(())
        }),
    }))
}

/// The version of the bpf-linker that a build would find.
fn installed_bpf_linker() -> Option<String> {
    let path = workspace::find_command("bpf-linker")?;
    version_of(&path)
}

fn version_of(path: &Path) -> Option<String> {
    let output = Command::new(path).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().strip_prefix("bpf-linker ").map(str::to_owned)
}

fn rustup(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(arguments)
        .env("PATH", workspace::search_path());
    command
}

fn install(name: &str, command: Command) -> Result<()> {
    let step = Step {
        label: &format!("install {name}"),
        log: &format!("setup-{name}"),
        show: Show::LastLine,
        limit: Duration::from_mins(10),
    };
    progress::run(&step, command)?;
    Ok(())
}
