//! What every test is wrapped in: the rule about root, a bound in time, clean-up, the log on failure.

use std::any::Any;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::abort;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Once, RwLock};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::unistd::geteuid;

use crate::node::{Node, Shared};
use crate::sweep;
use crate::wait::on_this_machine;

/// How long a test may take unless it says otherwise.
const DEFAULT_BOUND: Duration = Duration::from_mins(2);

/// How long a test may take to end once its processes were killed.
const LAST_BOUND: Duration = Duration::from_mins(1);

/// Lines of the agent's log shown when a test fails.
const LOG_LINES: usize = 200;

/// Held for reading by every test, for writing by one that wants the machine for itself.
static MACHINE: RwLock<()> = RwLock::new(());

/// Runs one test on a node of its own.
///
/// # Panics
/// When the test fails, or when it needs root under CI and has none.
pub fn scenario(test: impl FnOnce(&Node) -> Result<()>) {
    Scenario::default().run(test);
}

/// How a test is to be run, where the defaults do not fit.
#[derive(Default)]
pub struct Scenario {
    bound: Option<Duration>,
    alone: bool,
}

impl Scenario {
    /// Lets the test take this long, on a machine of ordinary speed.
    #[must_use]
    pub fn bound(mut self, bound: Duration) -> Self {
        self.bound = Some(bound);
        self
    }

    /// Runs no other test beside it, since it measures time.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Runs the test on a node of its own.
    ///
    /// # Panics
    /// When the test fails, or when it needs root under CI and has none.
    pub fn run(self, test: impl FnOnce(&Node) -> Result<()>) {
        if !may_run() {
            return;
        }
        let shared = (!self.alone).then(|| MACHINE.read());
        let exclusive = self.alone.then(|| MACHINE.write());
        let outcome = run_bounded(on_this_machine(self.bound.unwrap_or(DEFAULT_BOUND)), test);
        drop((shared, exclusive));
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    }
}

/// Whether the test can run here; it needs root for namespaces, cgroups and programs.
fn may_run() -> bool {
    static SWEEP: Once = Once::new();
    if geteuid().is_root() {
        SWEEP.call_once(|| {
            if let Err(error) = sweep::leftovers() {
                eprintln!("leftovers of an earlier run stay: {error:#}");
            }
        });
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "end-to-end tests need root, and CI must run them"
    );
    say("skipped: needs root");
    false
}

/// Says something in any case; what a test prints is shown only when it fails.
pub fn say(text: &str) {
    let current = thread::current();
    let name = current.name().unwrap_or("test");
    // Nobody reads a closed stderr.
    let _ = writeln!(io::stderr(), "{name}: {text}");
}

fn run_bounded(bound: Duration, test: impl FnOnce(&Node) -> Result<()>) -> Result<(), String> {
    let node = Node::new().map_err(|error| format!("cannot build the node: {error:#}"))?;
    let watchdog = Watchdog::start(node.shared(), bound);
    // The node is only cleaned up after a panic, not used.
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&node)));
    let timed_out = watchdog.stop();
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(panic) => Some(panic_text(panic.as_ref())),
    };
    let Some(failure) = failure else {
        return Ok(());
    };
    let late = if timed_out {
        format!("took longer than {bound:?}, so its processes were killed: ")
    } else {
        String::new()
    };
    Err(format!("{late}{failure}\n{}", agent_logs(node.dir())))
}

/// Kills the node's processes when the test takes too long, so that whatever it waits for ends.
struct Watchdog {
    stop: Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watchdog {
    fn start(shared: Arc<Shared>, bound: Duration) -> Self {
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            if stopped.recv_timeout(bound) != Err(RecvTimeoutError::Timeout) {
                return false;
            }
            let _ = shared.cgroup.kill_all();
            if stopped.recv_timeout(on_this_machine(LAST_BOUND)) == Err(RecvTimeoutError::Timeout) {
                eprintln!(
                    "{}: the test hangs though its processes were killed; giving up",
                    shared.id
                );
                abort();
            }
            true
        });
        Self { stop, thread }
    }

    /// Whether it had to step in.
    fn stop(self) -> bool {
        let _ = self.stop.send(());
        self.thread.join().unwrap_or(true)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked".to_owned())
}

/// The last lines of every agent's log.
fn agent_logs(dir: &Path) -> String {
    let Ok(entries) = fs::read_dir(dir) else {
        return String::new();
    };
    let mut logs: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with("-mesh-agent.err"))
        .collect();
    logs.sort();
    let mut text = String::new();
    for log in logs {
        let lines = fs::read(&log).unwrap_or_default();
        let lines = String::from_utf8_lossy(&lines).into_owned();
        let lines: Vec<_> = lines.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        let _ = write!(text, "--- {}\n{}\n", log.display(), last.join("\n"));
    }
    text
}
