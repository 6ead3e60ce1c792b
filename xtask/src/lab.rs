//! A lab for demo and benchmarks: pods from network namespaces on a bridge that is itself in a
//! namespace, and a cgroup of its own to which the agent attaches. The host's addresses, routes and
//! processes are not touched; everything is found again by name, so leftovers can be swept.

mod agent;
mod maps;
mod sweep;

pub use agent::{Agent, PodEntry, configuration};
pub use maps::{attached_programs, counters, open_connections};

use crate::{interrupt, workspace};
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One lab. Dropping it removes all that carries its name.
pub struct Lab {
    name: &'static str,
    cgroup: PathBuf,
    directory: PathBuf,
    // Held as long as the lab lives: two labs of one name would sweep each other away.
    _lock: File,
}

/// A pod: a network namespace with one interface on the lab's bridge.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name in the agent's configuration.
    pub name: &'static str,
    /// Its address on the lab's bridge.
    pub address: &'static str,
    namespace: String,
    cgroup: PathBuf,
}

impl Lab {
    /// Sweeps what an earlier lab of this name has left, and starts an empty one.
    pub fn open(name: &'static str) -> Result<Self> {
        let lock = lock(name)?;
        let _whole = interrupt::hold();
        interrupt::on_stop(move || report(sweep::all(name)));
        sweep::all(name).with_context(|| format!("cannot remove what an earlier {name} left"))?;
        let cgroup = sweep::cgroup_path(name)?;
        let directory = sweep::directory(name);
        for path in [&cgroup, &directory] {
            fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let lab = Self {
            name,
            cgroup,
            directory,
            _lock: lock,
        };
        let fabric = lab.fabric();
        ip(&["netns", "add", &fabric])?;
        ip(&["-n", &fabric, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &fabric, "link", "set", "bridge", "up"])?;
        Ok(lab)
    }

    /// Adds a pod with `address`, which all pods reach directly (they share a /24).
    pub fn pod(&self, name: &'static str, address: &'static str) -> Result<Pod> {
        let _whole = interrupt::hold();
        let namespace = format!("{}-{name}", self.name);
        let fabric = self.fabric();
        // Interface names end at 15 characters; the last part of the address is unique.
        let port = format!("port{}", address.rsplit('.').next().unwrap_or_default());
        ip(&["netns", "add", &namespace])?;
        ip(&[
            "-n", &fabric, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
            &namespace,
        ])?;
        ip(&[
            "-n", &fabric, "link", "set", &port, "master", "bridge", "up",
        ])?;
        ip(&[
            "-n",
            &namespace,
            "address",
            "add",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        Ok(Pod {
            name,
            address,
            namespace,
            cgroup: self.cgroup.clone(),
        })
    }

    /// Adds a pod without a network: only a namespace, for counting what a pod costs.
    pub fn bare_namespace(&self, name: &str) -> Result<String> {
        let _whole = interrupt::hold();
        let namespace = format!("{}-{name}", self.name);
        ip(&["netns", "add", &namespace])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(format!("/run/netns/{namespace}"))
    }

    /// A file of the lab, removed with it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The cgroup all of the lab's processes are in, and to which its agent attaches.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The directory of the lab's pinned maps.
    pub fn pins(&self) -> PathBuf {
        sweep::pins(self.name)
    }

    /// Ends the lab and says what could not be removed.
    pub fn close(self) -> Result<()> {
        sweep::all(self.name)
    }

    fn fabric(&self) -> String {
        format!("{}-fabric", self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // After a signal its thread sweeps; two at once would report each other's work as errors.
        interrupt::wait_if_stopping();
        report(sweep::all(self.name));
    }
}

impl Pod {
    /// The file that stands for its network namespace.
    pub fn netns(&self) -> String {
        format!("/run/netns/{}", self.namespace)
    }

    /// A command that runs inside the pod.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = in_cgroup(&self.cgroup);
        // Only the network is the pod's; `ip netns exec` would change the mounts as well.
        command
            .arg("nsenter")
            .arg(format!("--net={}", self.netns()))
            .arg("--")
            .arg(program);
        command
    }
}

/// The start of a command line whose program, given as further arguments, runs in `cgroup`.
fn in_cgroup(cgroup: &Path) -> Command {
    let mut command = Command::new("sh");
    // Writing 0 moves the writer itself.
    command
        .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(cgroup)
        .env("PATH", workspace::search_path());
    command
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .env("PATH", workspace::search_path())
        .output()
        .context("cannot start ip (Debian package iproute2)")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("`ip {}` failed: {}", arguments.join(" "), message.trim());
    }
    Ok(())
}

fn lock(name: &str) -> Result<File> {
    let path = PathBuf::from(format!("/run/{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another {name} is running (it holds {}); wait for its end",
                path.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn report(outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("clean-up: {error:#}");
    }
}
