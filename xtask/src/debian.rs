//! The commands that come from Debian packages: one list, with who needs each and what for.

use crate::interrupt;
use crate::progress::{self, Show, Step};
use crate::setup::{Missing, Purpose};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A command, or a file by its whole path, which may come from anywhere, and the package that has it on
/// Debian.
struct Needed {
    command: &'static str,
    package: &'static str,
    purposes: &'static [Purpose],
    reason: &'static str,
}

const COMMANDS: &[Needed] = {
    use Purpose::{Bench, Demo, Test, Vm};
    &[
        needed(
            "ip",
            "iproute2",
            &[Demo, Test, Vm, Bench],
            "builds pods from network namespaces",
        ),
        needed(
            "nsenter",
            "util-linux",
            &[Demo, Test, Vm, Bench],
            "starts programs inside a pod",
        ),
        needed(
            "bpftool",
            "bpftool",
            &[Demo, Test, Vm],
            "reads the maps independently of the agent",
        ),
        needed("curl", "curl", &[Demo, Test, Vm], "client"),
        needed("python3", "python3", &[Demo, Test, Vm], "client and server"),
        needed("nginx", "nginx", &[Test, Bench], "server"),
        needed("node", "nodejs", &[Test], "client"),
        needed(
            "javac",
            "default-jdk-headless",
            &[Test],
            "client whose sockets are IPv6 by default",
        ),
        needed(
            "strace",
            "strace",
            &[Test],
            "shows that other pods notice nothing",
        ),
        needed(
            "haproxy",
            "haproxy",
            &[Test, Bench],
            "external proxy that the agent captures for",
        ),
        needed(
            "tcpdump",
            "tcpdump",
            &[Test],
            "packet timestamps to compare with",
        ),
        needed("tinyproxy", "tinyproxy-bin", &[Test], "forward proxy"),
        needed(
            "redis-server",
            "redis-server",
            &[Test],
            "where agents count together",
        ),
        needed("dnsmasq", "dnsmasq-base", &[Test, Bench], "DNS server"),
        needed("dnsperf", "dnsperf", &[Bench], "DNS load generator"),
        needed("dig", "bind9-dnsutils", &[Test], "resolver"),
        needed(
            "busybox",
            "busybox-static",
            &[Test, Vm],
            "resolver of another make",
        ),
        needed(
            "qemu-system-x86_64",
            "qemu-system-x86",
            &[Test, Vm],
            "boots other kernels",
        ),
        needed(
            "musl-gcc",
            "musl-tools",
            &[Test],
            "resolver of Alpine's make",
        ),
        needed("h2load", "nghttp2-client", &[Test, Bench], "HTTP/2 client"),
        needed(
            "/usr/lib/python3/dist-packages/grpc/__init__.py",
            "python3-grpcio",
            &[Test],
            "gRPC client and server",
        ),
        needed(
            "/usr/lib/python3/dist-packages/websockets/__init__.py",
            "python3-websockets",
            &[Test],
            "WebSocket client and server",
        ),
        needed(
            "/usr/lib/python3/dist-packages/prometheus_client/__init__.py",
            "python3-prometheus-client",
            &[Test],
            "reads metrics as Prometheus does",
        ),
        needed(
            "prometheus",
            "prometheus",
            &[Test],
            "asks what the dashboard asks",
        ),
        needed("tmux", "tmux", &[Test], "terminal to draw on"),
        needed("chromium", "chromium", &[Test], "browser"),
        needed("chromedriver", "chromium-driver", &[Test], "drives it"),
        needed("xz", "xz-utils", &[Test, Vm], "unpacks their modules"),
        needed("wrk", "wrk", &[Bench], "load generator"),
        needed(
            "sysctl",
            "procps",
            &[Bench],
            "lets clients reuse ports sooner",
        ),
        needed("iperf3", "iperf3", &[Bench], "bulk stream"),
        needed(
            "iptables",
            "iptables",
            &[Test, Bench],
            "the REDIRECT rule to compare with",
        ),
    ]
};

/// Packages that bring a service of the same name.
const SERVICES: [&str; 4] = ["nginx", "haproxy", "redis-server", "prometheus"];

const fn needed(
    command: &'static str,
    package: &'static str,
    purposes: &'static [Purpose],
    reason: &'static str,
) -> Needed {
    Needed {
        command,
        package,
        purposes,
        reason,
    }
}

impl Needed {
    fn is_there(&self) -> bool {
        if self.command.starts_with('/') {
            Path::new(self.command).exists()
        } else {
            workspace::find_command(self.command).is_some()
        }
    }
}

/// The packages to install for `purpose`, as one step. None when every command is there.
pub fn missing_packages(purpose: Purpose) -> Option<Missing> {
    let missing: Vec<&Needed> = COMMANDS
        .iter()
        .filter(|needed| needed.purposes.contains(&purpose))
        .filter(|needed| !needed.is_there())
        .collect();
    if missing.is_empty() {
        return None;
    }
    let packages: Vec<&'static str> = missing.iter().map(|needed| needed.package).collect();
    let reasons: Vec<String> = missing
        .iter()
        .map(|needed| format!("{}: {}", needed.command, needed.reason))
        .collect();
    Some(Missing {
        what: format!("Debian packages {}", packages.join(" ")),
        why: reasons.join("; "),
        by_hand: format!(
            "apt-get update && apt-get install --yes --no-install-recommends {}",
            packages.join(" ")
        ),
        needs_root: true,
        install: Box::new(move || install(&packages)),
    })
}

fn install(packages: &[&str]) -> Result<()> {
    anyhow::ensure!(
        workspace::find_command("apt-get").is_some(),
        "there is no apt-get here; install what holds these commands with your package manager: {}",
        packages.join(" ")
    );
    let services: Vec<&str> = SERVICES
        .into_iter()
        .filter(|service| packages.contains(service))
        .collect();
    let quiet = NoServiceStarts::begin()?;
    let refresh = || apt_get("refresh Debian's package lists", &["update"]);
    let install = || apt_get("install Debian packages", &install_arguments(packages));
    if !are_known(packages) {
        refresh()?;
        install()?;
    } else if install().is_err() {
        // The lists may name versions that the archive has replaced since.
        refresh()?;
        install()?;
    }
    drop(quiet);
    if !services.is_empty() && Path::new("/run/systemd/system").exists() {
        // Only the programs are needed: the host is not to serve anything after its next boot.
        let mut command = Command::new("systemctl");
        command.arg("disable").args(services);
        apt_step("keep their services from starting at boot", command)?;
    }
    Ok(())
}

fn install_arguments<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    arguments
}

/// Whether the package lists are there and have these packages.
fn are_known(packages: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.arg("--simulate").args(install_arguments(packages));
    command.output().is_ok_and(|output| output.status.success())
}

fn apt_get(label: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        // Another apt may be at work, for example unattended upgrades: wait for it.
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    apt_step(label, command)
}

fn apt_step(label: &str, command: Command) -> Result<()> {
    let step = Step {
        label,
        log: "setup-packages",
        show: Show::LastLine,
        limit: Duration::from_mins(10),
    };
    progress::run(&step, command)?;
    Ok(())
}

/// While this lives, packages do not start their services (nginx would take the host's port 80).
struct NoServiceStarts;

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Whether the policy file is there because we wrote it.
static POLICY_IS_OURS: AtomicBool = AtomicBool::new(false);

impl NoServiceStarts {
    fn begin() -> Result<Self> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY);
        match file {
            Ok(mut file) => {
                file.write_all(b"#!/bin/sh\nexit 101\n")
                    .with_context(|| format!("cannot write {POLICY}"))?;
                POLICY_IS_OURS.store(true, Ordering::SeqCst);
                interrupt::on_stop(remove_our_policy);
                Ok(Self)
            }
            // The administrator's own policy stays in force.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self),
            Err(error) => Err(error).with_context(|| format!("cannot create {POLICY}")),
        }
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        remove_our_policy();
    }
}

fn remove_our_policy() {
    if POLICY_IS_OURS.swap(false, Ordering::SeqCst)
        && let Err(error) = fs::remove_file(POLICY)
    {
        eprintln!("cannot remove {POLICY}, remove it by hand: {error}");
    }
}
