//! The agent of a lab: its configuration, start, questions to it, and its end.

use super::{Lab, Pod, in_cgroup};
use crate::interrupt::{self, Running};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long the agent may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the agent is to do with one pod.
pub struct PodEntry {
    name: String,
    netns: String,
    settings: String,
}

/// A running agent.
pub struct Agent {
    binary: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Running,
}

impl PodEntry {
    /// `settings` are the further fields, as one YAML flow line each.
    pub fn new(name: &str, netns: String, settings: &[&str]) -> Self {
        let settings = settings
            .iter()
            .flat_map(|line| {
                [
                    "    ", *line, "
",
                ]
            })
            .collect();
        Self {
            name: name.to_owned(),
            netns,
            settings,
        }
    }

    /// An entry for a pod of the lab.
    pub fn of(pod: &Pod, settings: &[&str]) -> Self {
        Self::new(pod.name, pod.netns(), settings)
    }
}

/// The configuration file for `pods` in this lab.
pub fn configuration(lab: &Lab, pods: &[PodEntry]) -> String {
    let mut text = format!(
        "agent:\n  cgroup: {}\n  pinPath: {}\n  adminSocket: {}\n  metrics: off\npods:\n",
        lab.cgroup().display(),
        lab.pins().display(),
        lab.file("admin.sock").display(),
    );
    for pod in pods {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "  - name: {}\n    netns: {}\n{}",
            pod.name, pod.netns, pod.settings
        );
    }
    text
}

impl Agent {
    /// Starts the agent with `configuration` and waits until it is ready.
    pub fn start(lab: &Lab, binary: &Path, configuration: &str) -> Result<Self> {
        let file = lab.file("mesh.yaml");
        fs::write(&file, configuration)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let log = lab.file("agent.log");
        let log_file =
            File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = in_cgroup(lab.cgroup());
        command.arg(binary).args(["run", "--config"]).arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        let mut agent = Self {
            binary: binary.to_owned(),
            socket: lab.file("admin.sock"),
            log,
            process: interrupt::spawn(&mut command)?,
        };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.poll()? {
                bail!(
                    "the agent ended ({status}) before it was ready:\n{}",
                    self.log()?
                );
            }
            if self.is_ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the agent is not ready after {PATIENCE:?}:\n{}",
                    self.log()?
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_ready(&self) -> bool {
        self.status().is_ok_and(|status| status["ready"] == true)
    }

    /// Its `status`, as JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let output = self
            .ask("status")
            .args(["--output", "json"])
            .output()
            .context("cannot start the agent's binary")?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "no status: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )
        })
    }

    /// A reading verb, for example `status`.
    pub fn ask(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(verb).arg("--admin-socket").arg(&self.socket);
        command
    }

    /// What a reading verb prints.
    pub fn answer(&self, verb: &str) -> Result<String> {
        let output = self
            .ask(verb)
            .output()
            .context("cannot start the agent's binary")?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("`mesh-agent {verb}` failed: {}", message.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// All it has logged.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("cannot read the agent's log")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        // The shell and nsenter before it were replaced, not forked from.
        self.process.pid()
    }

    /// Ends it as a crash would. Returns the moment of the kill.
    pub fn kill(mut self) -> Result<Instant> {
        self.process.signal(Signal::SIGKILL)?;
        let killed = Instant::now();
        self.process
            .wait(PATIENCE)?
            .context("the agent survives SIGKILL")?;
        Ok(killed)
    }

    /// Ends it, and starts another with `configuration`.
    pub fn restart(&mut self, lab: &Lab, binary: &Path, configuration: &str) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process
            .wait(PATIENCE)?
            .with_context(|| format!("the agent has not ended {PATIENCE:?} after SIGTERM"))?;
        *self = Self::start(lab, binary, configuration)?;
        Ok(())
    }

    /// Asks it to end, and returns how it ended, its log and how long it took.
    pub fn terminate(mut self) -> Result<(ExitStatus, String, Duration)> {
        let asked = Instant::now();
        self.process.signal(Signal::SIGTERM)?;
        let status = self
            .process
            .wait(PATIENCE)?
            .with_context(|| format!("the agent has not ended {PATIENCE:?} after SIGTERM"))?;
        Ok((status, self.log()?, asked.elapsed()))
    }
}
