//! The real agent binary.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mesh_common::Counter;
use nix::sys::signal::Signal;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde_json::Value;

use crate::maps::{self, MapEntries};
use crate::node::{Node, Shared};
use crate::process::{Finished, Process};
use crate::wait::{wait_for, wait_until};

/// How long the agent may take until it is ready.
const READY_BOUND: Duration = Duration::from_secs(20);

/// How long the agent may take to refuse a configuration.
const REFUSE_BOUND: Duration = Duration::from_secs(15);

/// How long an entry may outlive its connection.
const IDLE_BOUND: Duration = Duration::from_secs(10);

/// How long the kernel may take to detach a program that nobody holds any more.
const DETACH_BOUND: Duration = Duration::from_secs(2);

/// The leaf cgroup of the agent.
const LEAF: &str = "agent";

/// A running agent; killed when dropped.
pub struct Agent {
    shared: Arc<Shared>,
    config: PathBuf,
    process: Process,
}

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    let path = match env::var_os("MESH_AGENT_BIN") {
        Some(path) => PathBuf::from(path),
        None => match env::var_os("CARGO_TARGET_DIR") {
            Some(target) => PathBuf::from(target),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        }
        .join("fast/mesh-agent"),
    };
    ensure!(
        path.is_file(),
        "no agent at {}: build it with `cargo build --profile fast -p mesh-agent`, or set MESH_AGENT_BIN",
        path.display()
    );
    Ok(path)
}

impl Agent {
    /// Starts the agent with `yaml` and waits until it is ready.
    pub(crate) fn start(shared: &Arc<Shared>, yaml: &str) -> Result<Self> {
        let mut agent = Self::launch(shared, yaml)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts the agent with `yaml` and waits for nothing.
    pub(crate) fn launch(shared: &Arc<Shared>, yaml: &str) -> Result<Self> {
        let config = write_config(shared, yaml)?;
        Ok(Self {
            process: launch(shared, &config)?,
            shared: Arc::clone(shared),
            config,
        })
    }

    /// Runs the agent with `yaml` until it gives up by itself.
    pub(crate) fn run_to_end(shared: &Arc<Shared>, yaml: &str) -> Result<Finished> {
        let config = shared.dir.join(format!("{}.yaml", shared.label("refused")));
        fs::write(&config, yaml)?;
        launch(shared, &config)?.finish(REFUSE_BOUND)
    }

    /// Runs the binary with `args` to its end.
    pub(crate) fn run_verb<S: AsRef<OsStr>>(
        shared: &Shared,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished> {
        let mut argv = vec![binary()?.into_os_string()];
        argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        shared.spawn(LEAF, None, argv)?.finish(REFUSE_BOUND)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let ready = wait_until(READY_BOUND, "the agent to be ready", || {
            ensure!(self.process.is_running()?, "the agent ended");
            Ok(self.shared.dir.join("admin.sock").exists()
                && self
                    .status()
                    .is_ok_and(|status| status["ready"] == Value::Bool(true)))
        });
        ready.with_context(|| format!("log:\n{}", self.log().unwrap_or_default()))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log so far.
    pub fn log(&self) -> Result<String> {
        self.process.stderr()
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }

    /// Writes a new configuration over the old one, in one step as editors and config maps do.
    pub fn rewrite_config(&self, yaml: &str) -> Result<()> {
        let new = self.config.with_extension("new");
        fs::write(&new, yaml)?;
        fs::rename(&new, &self.config).context("cannot replace the configuration")
    }

    /// Where its configuration file is.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Runs a reading verb with `--output json`.
    pub fn json(&self, verb: &str) -> Result<Value> {
        let text = self.verb([verb, "--output", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("`{verb}` printed no JSON: {text}"))
    }

    /// Runs a reading verb and gives what it printed.
    pub fn verb<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let output = Command::new(binary()?)
            .args(args)
            .arg("--admin-socket")
            .arg(self.shared.dir.join("admin.sock"))
            .output()?;
        ensure!(
            output.status.success(),
            "the verb ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What Prometheus would get.
    pub fn metrics(&self) -> Result<String> {
        let socket = self.shared.dir.join("admin.sock");
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--max-time", "5", "--unix-socket"])
            .arg(socket)
            .arg("http://agent/metrics")
            .output()?;
        ensure!(
            output.status.success(),
            "no metrics: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `status --output json` says.
    pub fn status(&self) -> Result<Value> {
        self.json("status")
    }

    /// One of the kernel half's counters, as `status` names it.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        status["counters"][name]
            .as_u64()
            .with_context(|| format!("status has no counter {name}: {status}"))
    }

    /// The same from the pinned map, also when no agent runs.
    pub fn kernel_counter(&self, counter: Counter) -> Result<u64> {
        maps::per_cpu_sum(&self.pin("counters"), counter as u32)
    }

    /// The state of a pod as the agent sees it; none if it does not know the pod.
    pub fn pod_state(&self, name: &str) -> Result<Option<String>> {
        let pods = self.json("pods")?;
        let pods = pods.as_array().context("`pods` printed no list")?;
        let pod = pods.iter().find(|pod| pod["name"] == name);
        Ok(pod.and_then(|pod| pod["state"].as_str()).map(str::to_owned))
    }

    /// Waits until the agent reports `state` for a pod.
    pub fn wait_pod_state(&self, name: &str, state: &str) -> Result<()> {
        wait_until(READY_BOUND, &format!("pod {name} to be {state}"), || {
            Ok(self.pod_state(name)?.as_deref() == Some(state))
        })
    }

    /// Where a map is pinned.
    pub fn pin(&self, name: &str) -> PathBuf {
        self.shared.pin_path.join(name)
    }

    /// Dumps one of its pinned maps.
    pub fn map_dump(&self, name: &str) -> Result<MapEntries> {
        maps::dump(&self.pin(name))
    }

    /// Waits until `origin_dst_map` has at least one entry and gives them all.
    pub fn wait_captured(&self) -> Result<MapEntries> {
        wait_for(IDLE_BOUND, "an entry in origin_dst_map", || {
            let entries = self.map_dump("origin_dst_map")?;
            Ok((!entries.is_empty()).then_some(entries))
        })
    }

    /// Waits until no connection is left: none in the kernel's map, none in the agent's own count.
    pub fn wait_idle(&self) -> Result<()> {
        let mut seen = String::new();
        wait_until(IDLE_BOUND, "the last entry to leave origin_dst_map", || {
            let entries = self.map_dump("origin_dst_map")?;
            let open = self.status()?["connections"]["open"].clone();
            seen = format!(
                "{} entries, first {:?}; the agent counts {open} open",
                entries.len(),
                entries.first()
            );
            Ok(entries.is_empty() && open == 0)
        })
        .with_context(|| seen.clone())
    }

    /// Open files of the agent.
    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Processor time that it has used so far, in its own code and in the kernel.
    pub fn processor_time(&self) -> Result<Duration> {
        // Not from /proc, which has ticks of 10 ms: five of them are a hundredth of five seconds.
        let clock = clock_getcpuclockid(Pid::from_raw(self.pid().cast_signed()))?;
        Ok(Duration::from(clock.now()?))
    }

    /// Resident memory of the agent, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most resident memory that the agent ever had, in bytes.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with(field))
            .with_context(|| format!("no {field}"))?;
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .with_context(|| format!("no number in {field}"))?
            .parse()?;
        Ok(kib * 1024)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Waits until it has ended, however.
    pub fn ended(self, bound: Duration) -> Result<Finished> {
        self.process.finish(bound)
    }

    /// Waits until it has ended and demands success.
    pub fn finish(self, bound: Duration) -> Result<()> {
        let finished = self.ended(bound)?;
        if !finished.status.success() {
            bail!(
                "the agent ended with {}:\n{}",
                finished.status,
                finished.stderr
            );
        }
        Ok(())
    }

    /// SIGTERM, waits until it has ended and demands success.
    pub fn terminate(self, bound: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        self.finish(bound)
    }

    /// Starts it again with the same file after it was killed, and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = launch(&self.shared, &self.config)?;
        self.wait_ready()
    }
}

impl Node {
    /// Fails unless nothing of an agent is left on this node: programs, pins, socket.
    pub fn ensure_no_traces(&self) -> Result<()> {
        // The kernel detaches a program a moment after the last reference to its link is gone.
        let mut attached = Vec::new();
        wait_until(DETACH_BOUND, "the programs to be detached", || {
            attached = maps::attached(self.cgroup())?;
            Ok(attached.is_empty())
        })
        .with_context(|| format!("{attached:#?}"))?;
        if self.pin_path().exists() {
            let pins: Vec<_> = fs::read_dir(self.pin_path())?
                .flatten()
                .map(|entry| entry.path())
                .collect();
            bail!("{} is still there with {pins:?}", self.pin_path().display());
        }
        ensure!(
            !self.dir().join("admin.sock").exists(),
            "the admin socket is still there"
        );
        Ok(())
    }

    /// Programs attached to this node's cgroup.
    pub fn attached_programs(&self) -> Result<Vec<String>> {
        maps::attached(self.cgroup())
    }
}

fn write_config(shared: &Shared, yaml: &str) -> Result<PathBuf> {
    let config = shared.dir.join("config.yaml");
    fs::write(&config, yaml)?;
    Ok(config)
}

fn launch(shared: &Shared, config: &Path) -> Result<Process> {
    let binary = binary()?;
    shared.spawn(
        LEAF,
        None,
        [
            binary.as_os_str(),
            OsStr::new("run"),
            OsStr::new("--config"),
            config.as_os_str(),
        ],
    )
}
