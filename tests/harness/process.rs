//! Child processes: placed in the node's cgroup, bounded in time, ended when dropped.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::proc_net;
use crate::unsafe_pre_exec::place;
use crate::wait::{wait_for, wait_until};

/// How long a server may take until it listens; a cold JVM on a busy machine is the slowest.
const LISTEN_BOUND: Duration = Duration::from_secs(20);

/// A running child process. Its output goes to files, so it never blocks on a full pipe.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` in the given cgroup and namespace; its output goes to files below `log_dir`.
    pub fn start(
        mut command: Command,
        log_dir: &Path,
        label: &str,
        cgroup_procs: OwnedFd,
        netns: Option<OwnedFd>,
    ) -> Result<Self> {
        let (stdout, stderr) = (
            log_dir.join(format!("{label}.out")),
            log_dir.join(format!("{label}.err")),
        );
        for proxy in [
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            command.env_remove(proxy);
        }
        command
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?);
        place(&mut command, cgroup_procs, netns);
        let name = command.get_program().display().to_string();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            child,
            stdout,
            stderr,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes the child's standard input; dropping it is end of file.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> Result<String> {
        read_lossy(&self.stdout)
    }

    /// What it has printed to stderr so far.
    pub fn stderr(&self) -> Result<String> {
        read_lossy(&self.stderr)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until the process listens on TCP `port`, on any address.
    pub fn listening(mut self, port: u16) -> Result<Self> {
        wait_until(
            LISTEN_BOUND,
            &format!("{} to listen on port {port}", self.name),
            || {
                if let Some(status) = self.child.try_wait()? {
                    bail!(
                        "{} ended with {status} before it listened:\n{}",
                        self.name,
                        self.stderr()?
                    );
                }
                Ok(proc_net::listens(self.pid(), port))
            },
        )?;
        Ok(self)
    }

    /// Waits until its standard output contains `text`.
    pub fn wait_stdout(&mut self, text: &str, bound: Duration) -> Result<()> {
        let found = wait_until(bound, &format!("{} to print {text:?}", self.name), || {
            if self.stdout()?.contains(text) {
                return Ok(true);
            }
            if let Some(status) = self.child.try_wait()? {
                // It may have printed between the two looks.
                return if self.stdout()?.contains(text) {
                    Ok(true)
                } else {
                    bail!("it ended with {status}")
                };
            }
            Ok(false)
        });
        match found {
            Ok(()) => Ok(()),
            Err(error) => bail!(
                "{error:#}\nstdout: {}\nstderr: {}",
                self.stdout()?,
                self.stderr()?
            ),
        }
    }

    /// Waits until it ends by itself; past `bound` it is killed and this fails.
    pub fn finish(mut self, bound: Duration) -> Result<Finished> {
        drop(self.child.stdin.take());
        let ended = wait_for(bound, &format!("{} to end", self.name), || {
            Ok(self.child.try_wait()?)
        });
        match ended {
            Ok(status) => Ok(Finished {
                name: self.name.clone(),
                status,
                stdout: self.stdout()?,
                stderr: self.stderr()?,
            }),
            Err(error) => bail!(
                "{error:#}\nstdout: {}\nstderr: {}",
                self.stdout()?,
                self.stderr()?
            ),
        }
    }

    /// Ends it at once and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All it printed.
    pub stdout: String,
    /// All it printed to stderr.
    pub stderr: String,
}

impl Finished {
    /// Its standard output if it exited with 0, else an error that shows both outputs.
    pub fn success(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!(
            "{} ended with {}\nstdout: {}\nstderr: {}",
            self.name,
            self.status,
            self.stdout,
            self.stderr
        );
    }

    /// Its standard output as JSON, if it exited with 0.
    pub fn json(self) -> Result<serde_json::Value> {
        let name = self.name.clone();
        let text = self.success()?;
        serde_json::from_str(&text).with_context(|| format!("{name} printed no JSON: {text:?}"))
    }
}

/// How many files a child of the harness may open.
pub fn open_file_limit() -> Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

fn read_lossy(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}
