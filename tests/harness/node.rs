//! A stand-in for one Linux node.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::config::Config;
use crate::mounts::{BPFFS, cgroup2_root, ensure_bpffs};
use crate::pod::{Network, Pod};
use crate::process::{Finished, Process};

/// First part of the name of everything the tests make; the process id follows.
pub const PREFIX: &str = "mesh-test";

/// Tests of this process so far.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A node of its own for one test: names, cgroup, pins, files, and a default network for its pods.
pub struct Node {
    shared: Arc<Shared>,
    fabric: Network,
}

/// What pods and agents of a node have in common; removed when the last of them is gone.
pub struct Shared {
    /// Unique on this machine.
    pub id: String,
    /// Config, admin socket and logs.
    pub dir: PathBuf,
    /// Where the agent pins.
    pub pin_path: PathBuf,
    /// Holds the agent and every process of every pod.
    pub cgroup: Cgroup,
    started: AtomicU32,
}

impl Shared {
    /// A label for the output files of the next process.
    pub fn label(&self, name: &str) -> String {
        format!("{:03}-{name}", self.started.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Stays when an agent is killed, as most tests' agents are.
        if let Ok(cgroup) = fs::metadata(self.cgroup.path()) {
            let lock = format!("/run/mesh-agent/cgroup-{}.lock", cgroup.ino());
            let _ended_properly = fs::remove_file(lock);
        }
        if let Err(error) = self.cgroup.remove() {
            eprintln!("{}: {error:#}", self.id);
        }
        if self.pin_path.exists()
            && let Err(error) = fs::remove_dir_all(&self.pin_path)
        {
            eprintln!(
                "pins at {} were left behind: {error}",
                self.pin_path.display()
            );
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{} was left behind: {error}", self.dir.display());
        }
    }
}

impl Node {
    /// Makes a node with one network and no pods.
    pub fn new() -> Result<Self> {
        ensure_bpffs()?;
        let id = format!(
            "{PREFIX}-{}-{}",
            process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let shared = Arc::new(Shared {
            cgroup: Cgroup::create(cgroup2_root()?.join(&id))?,
            pin_path: Path::new(BPFFS).join(&id),
            dir,
            started: AtomicU32::new(0),
            id,
        });
        let fabric = Network::create(&shared, "fabric")?;
        Ok(Self { shared, fabric })
    }

    /// Part of the names of all namespaces of this node: `ID-POD`.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// What the watchdog needs.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Files of this test: configuration, admin socket, logs.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The cgroup that the agent attaches to.
    pub fn cgroup(&self) -> &Path {
        self.shared.cgroup.path()
    }

    /// A cgroup below [`Node::cgroup`], made if missing.
    pub fn cgroup_leaf(&self, name: &str) -> Result<PathBuf> {
        self.shared.cgroup.leaf(name)?;
        Ok(self.cgroup().join(name))
    }

    /// The directory the agent pins to.
    pub fn pin_path(&self) -> &Path {
        &self.shared.pin_path
    }

    /// Another network, on which addresses of the first may be used again.
    pub fn network(&self, name: &str) -> Result<Network> {
        Network::create(&self.shared, name)
    }

    /// A pod on the default network. Addresses without prefix length: /24 and /64.
    pub fn pod(&self, name: &str, v4: &str, v6: Option<&str>) -> Result<Pod> {
        self.fabric.pod(name, v4, v6)
    }

    /// A configuration for this node's agent, with no pods yet.
    pub fn config(&self) -> Config {
        Config::new(self)
    }

    /// Starts the agent and waits until it is ready.
    pub fn agent(&self, config: &Config) -> Result<Agent> {
        Agent::start(&self.shared, &config.to_yaml())
    }

    /// Starts the agent and waits for nothing.
    pub fn launch(&self, config: &Config) -> Result<Agent> {
        Agent::launch(&self.shared, &config.to_yaml())
    }

    /// Runs the agent with a configuration that it is expected to refuse; it must end by itself.
    pub fn refused(&self, yaml: &str) -> Result<Finished> {
        Agent::run_to_end(&self.shared, yaml)
    }

    /// Runs the agent's binary with these arguments to its end.
    pub fn agent_verb<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished> {
        Agent::run_verb(&self.shared, args)
    }

    /// Starts a program in the cgroup `leaf` of this node and in the machine's own network namespace.
    pub fn spawn<S: AsRef<std::ffi::OsStr>>(
        &self,
        leaf: &str,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        self.shared.spawn(leaf, None, argv)
    }

    /// Starts a Python script of `tests/programs` outside of all pods.
    pub fn spawn_python<S: AsRef<std::ffi::OsStr>>(
        &self,
        script: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        self.spawn("pods", crate::pod::python_argv(script, args))
    }
}
