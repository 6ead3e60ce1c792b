//! Ctrl-C and SIGTERM: end what was started, clean up, leave. Every child runs in a process group
//! of its own that is known here, so a signal reaches its whole tree and nothing is orphaned.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long children have after SIGTERM before they are killed.
const GRACE: Duration = Duration::from_secs(10);

static STOPPING: AtomicBool = AtomicBool::new(false);
/// The process groups now running. Whoever holds the lock keeps others from starting one.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    // A panic elsewhere must not keep the clean-up from running.
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

type CleanUp = Box<dyn FnOnce() + Send>;
/// What to do before leaving, last one first.
static CLEAN_UPS: Mutex<Vec<CleanUp>> = Mutex::new(Vec::new());

/// Adds something to do when a signal ends us. It must hold when there is nothing to clean up.
pub fn on_stop(clean_up: impl FnOnce() + Send + 'static) {
    CLEAN_UPS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Box::new(clean_up));
}

/// From now on SIGINT, SIGTERM and SIGHUP end all children, clean up and exit with 128 + signal.
pub fn install() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot install signal handlers")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            STOPPING.store(true, Ordering::SeqCst);
            // Held until the process ends: nothing new starts behind the clean-up's back.
            let running = groups();
            eprintln!("\nstopping (signal {signal}), cleaning up …");
            end_all(&running);
            let mut clean_ups = CLEAN_UPS.lock().unwrap_or_else(PoisonError::into_inner);
            clean_ups.drain(..).rev().for_each(|clean_up| clean_up());
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Keeps a signal's clean-up waiting until the guard is dropped: what is made meanwhile is whole,
/// and the clean-up sees it. No child may be started with [`spawn`] under it.
pub fn hold() -> impl Drop {
    groups()
}

/// Never returns once a signal has arrived: the signal's thread ends the process.
pub fn wait_if_stopping() {
    while STOPPING.load(Ordering::SeqCst) {
        thread::park();
    }
}

fn end_all(groups: &[Pid]) {
    let signal_all = |signal| {
        for group in groups {
            // It may have ended by itself.
            let _ = killpg(*group, signal);
        }
    };
    signal_all(Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    let mut leaders = groups.to_vec();
    while !leaders.is_empty() && Instant::now() < deadline {
        // The main thread may have waited for one already; that is an error here, and as good.
        leaders.retain(|leader| {
            matches!(
                waitpid(*leader, Some(WaitPidFlag::WNOHANG)),
                Ok(WaitStatus::StillAlive)
            )
        });
        thread::sleep(Duration::from_millis(10));
    }
    signal_all(Signal::SIGKILL);
}

/// A child process, leader of its own process group. Dropping it kills the group.
#[derive(Debug)]
pub struct Running {
    child: Child,
    group: Pid,
    finished: Option<ExitStatus>,
}

/// Starts `command` as a process group of its own.
pub fn spawn(command: &mut Command) -> Result<Running> {
    use std::os::unix::process::CommandExt;
    let mut running = groups();
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let group = Pid::from_raw(i32::try_from(child.id()).context("process id out of range")?);
    running.push(group);
    Ok(Running {
        child,
        group,
        finished: None,
    })
}

impl Running {
    /// The process id, which is the group's id as well.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if it has ended.
    pub fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.finished.is_none() {
            self.finished = self
                .child
                .try_wait()
                .context("cannot wait for a child process")?;
        }
        if self.finished.is_some() {
            groups().retain(|group| *group != self.group);
        }
        Ok(self.finished)
    }

    /// Waits for the end, up to `limit`; `None` when it is still running then.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.poll()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(self.group, signal)
            .with_context(|| format!("cannot send {signal} to process {}", self.group))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.finished.is_none() {
            // It may have ended meanwhile; then there is nothing to kill.
            let _ = killpg(self.group, Signal::SIGKILL);
            let _ = self.child.wait();
            groups().retain(|group| *group != self.group);
        }
    }
}
