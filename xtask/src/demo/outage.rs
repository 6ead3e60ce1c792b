//! The agent is killed while both clients keep sending requests.

use super::counter;
use super::narrate::{check, command, lines, milliseconds, note};
use super::scene::Scene;
use crate::interrupt::{self, Running};
use crate::lab::{Agent, Pod};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Requests to see from each client before and after the kill.
const ENOUGH: usize = 20;
/// A connect on a bridge takes 0.1 ms; the rest is for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);
/// What curl exits with when a connect fails.
const CONNECT_FAILED: i32 = 7;

/// One request as its client saw it.
struct Request {
    /// Nanoseconds since the epoch when the client began.
    begun: u128,
    /// What connecting took.
    connect: Duration,
    /// curl's exit code, 0 for success.
    exit: i32,
}

/// What the outage did.
pub struct Outage {
    /// How long the first connect after the kill took.
    pub first_connect: Duration,
    /// Requests that went direct.
    pub direct: usize,
}

/// A client that sends one request after the other, each on a connection of its own.
struct Load {
    log: PathBuf,
    _running: Running,
}

/// Kills `agent` under load and shows what both clients and the counters say.
pub fn show(scene: &Scene, agent: Agent) -> Result<Outage> {
    let script = "while :; do curl -s -o /dev/null -m 5 -w \"$(date +%s%N) %{time_connect} \
                  %{exitcode}\\n\" \"$0\"; done";
    command("both clients", "while :; do curl … ; done");
    let open = Load::start(scene, scene.open_client(), script)?;
    let closed = Load::start(scene, scene.closed_client(), script)?;
    for load in [&open, &closed] {
        load.wait_for(ENOUGH, |_| true)?;
    }
    let failed_open_before = counter(scene, "failedOpen")?;
    let refused_before = counter(scene, "refused")?;

    command("host", &format!("kill -9 {}", agent.pid()));
    let before_kill = now()?;
    agent.kill()?;
    let after_kill = now()?;
    for load in [&open, &closed] {
        load.wait_for(ENOUGH, |request| request.begun > after_kill)?;
    }
    let (open, closed) = (open.stop()?, closed.stop()?);

    let cut = open
        .iter()
        .filter(|it| it.begun < after_kill && it.exit != 0)
        .count();
    ensure!(
        cut <= 1,
        "{cut} requests failed before the kill, and only one can be under way then"
    );
    ensure!(
        open.iter()
            .filter(|it| it.begun < before_kill && it.exit != 0)
            .count()
            <= 1,
        "requests failed while the agent was running"
    );
    let direct: Vec<&Request> = open.iter().filter(|it| it.begun > after_kill).collect();
    let failed = direct.iter().filter(|it| it.exit != 0).count();
    let first = direct.first().context("no request after the kill")?.connect;
    let slowest = direct.iter().map(|it| it.connect).max().unwrap_or(first);
    note("client-a, onAgentDown: open");
    lines(&format!(
        "{} requests begun after the kill, {failed} failed; connects took {} at first, {} at most",
        direct.len(),
        milliseconds(first),
        milliseconds(slowest),
    ));
    if cut > 0 {
        lines("(the one that was under way through the agent at that moment was cut)");
    }
    ensure!(
        failed == 0,
        "client-a is to go direct, but {failed} requests failed"
    );
    ensure!(
        first < AT_ONCE,
        "the first connect without the agent took {first:?}"
    );
    check("no request failed after the kill: connects go direct at once");

    let later: Vec<&Request> = closed.iter().filter(|it| it.begun > after_kill).collect();
    let refused = later.iter().filter(|it| it.exit == CONNECT_FAILED).count();
    note("client-b, onAgentDown: closed");
    lines(&format!(
        "{} requests begun after the kill, {refused} refused",
        later.len()
    ));
    ensure!(
        refused == later.len(),
        "client-b is to be refused, but some requests were not"
    );
    check("nothing gets out of this pod unseen");

    let failed_open = counter(scene, "failedOpen")? - failed_open_before;
    let refusals = counter(scene, "refused")? - refused_before;
    note("the counters map, which outlives the agent:");
    lines(&format!("failedOpen +{failed_open}, refused +{refusals}"));
    ensure!(
        failed_open >= direct.len() as u64,
        "not every direct connect was counted"
    );
    ensure!(refusals >= refused as u64, "not every refusal was counted");
    check("each of them was counted in the kernel, with no agent running");
    Ok(Outage {
        first_connect: first,
        direct: direct.len(),
    })
}

impl Load {
    fn start(scene: &Scene, pod: &Pod, script: &str) -> Result<Self> {
        let log = scene.lab().file(&format!("{}.log", pod.name));
        let mut shell = pod.command("sh");
        shell
            .args(["-c", script, &scene.url()])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        shell.stdout(File::create(&log).context("cannot create a client's log")?);
        Ok(Self {
            log,
            _running: interrupt::spawn(&mut shell)?,
        })
    }

    fn wait_for(&self, count: usize, wanted: impl Fn(&Request) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.requests()?.iter().filter(|it| wanted(it)).count() < count {
            ensure!(
                Instant::now() < deadline,
                "a client sent fewer than {count} requests"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The requests so far, oldest first.
    fn requests(&self) -> Result<Vec<Request>> {
        let text = fs::read_to_string(&self.log).context("cannot read a client's log")?;
        // The last line may be half written.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().map(parse).collect()
    }

    fn stop(self) -> Result<Vec<Request>> {
        self.requests()
    }
}

fn parse(line: &str) -> Result<Request> {
    let mut fields = line.split(' ');
    let mut next = || {
        fields
            .next()
            .with_context(|| format!("unexpected line of curl: {line}"))
    };
    Ok(Request {
        begun: next()?.parse().context("begun")?,
        connect: Duration::from_secs_f64(next()?.parse().context("time_connect")?),
        exit: next()?.parse().context("exitcode")?,
    })
}

fn now() -> Result<u128> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_nanos())
}
