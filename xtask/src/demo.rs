//! `cargo xtask demo`: the same requests with the agent off and on, what the kernel's maps say
//! about them, and what happens when the agent is killed. Each step checks what it shows.

mod narrate;
mod outage;
mod scene;

use crate::lab::{self, Agent, Lab};
use crate::setup::{self, Purpose};
use crate::{build, workspace};
use anyhow::{Context, Result, ensure};
use narrate::{check, heading, lines, milliseconds, note, words};
use scene::{Scene, Seen};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Runs the verb.
pub fn run() -> Result<()> {
    if !workspace::is_root() {
        anyhow::bail!(
            "the demo makes network namespaces and loads programs, which needs root; run:\n  {}",
            workspace::as_root("demo")
        );
    }
    setup::ensure(Purpose::Demo)?;
    let binary = build::agent("fast")?;
    let started = Instant::now();
    let scene = Scene::open()?;

    heading(1, "Three pods, no agent");
    scene.introduce();
    let without = scene.requests()?;
    for (seen, address) in without.iter().zip(scene.client_addresses()) {
        ensure!(
            seen.address == address,
            "the server saw {}, not {address}",
            seen.address
        );
    }
    check("both requests answered; the server saw each pod's own address");

    heading(2, "The same requests with the agent");
    let agent = capture(&scene, &binary, &without)?;

    heading(3, "kill -9 of the agent while both clients go on");
    let outage = outage::show(&scene, agent)?;

    heading(4, "The agent comes back");
    let agent = take_over(&scene, &binary, &without)?;

    heading(5, "SIGTERM: nothing stays behind");
    let ended_in = end(&scene, agent, &without)?;

    scene.close()?;
    check("pods, cgroup and files of the demo are gone as well");
    println!();
    note(&format!(
        "In {:.0} s: requests captured without the apps or the server noticing, {} requests direct",
        started.elapsed().as_secs_f64(),
        outage.direct,
    ));
    note(&format!(
        "during the outage with the first connect in {}, a clean end in {}.",
        milliseconds(outage.first_connect),
        milliseconds(ended_in),
    ));
    Ok(())
}

/// Starts the agent, repeats the requests, and shows what the kernel's maps hold meanwhile.
fn capture(scene: &Scene, binary: &Path, without: &[Seen]) -> Result<Agent> {
    let configuration = scene.configuration();
    note("mesh.yaml:");
    lines(&configuration);
    let agent = Agent::start(scene.lab(), binary, &configuration)?;
    check(&format!(
        "mesh-agent runs (process {}) and has both pods enrolled",
        agent.pid()
    ));

    let before = redirected(scene)?;
    let with = scene.requests()?;
    ensure!(
        with == without,
        "the agent changed a result: {with:?} instead of {without:?}"
    );
    check("the same answers, and the server still sees each pod's own address");

    note("one more request, held open by reading slowly:");
    let slow = scene.slow_request()?;
    let after = redirected(scene)?;
    note("bpftool map dump pinned …/origin_dst_map (client → what it asked for, via its token):");
    let open = lab::open_connections(&scene.lab().pins())?;
    for entry in &open {
        lines(&format!(
            "{} → {} via {} (process {})",
            entry.client, entry.destination, entry.proxy, entry.process
        ));
    }
    ensure!(
        open.iter()
            .any(|entry| entry.destination == scene.server() && entry.proxy.starts_with("127.")),
        "the held connection is not in origin_dst_map: {open:?}"
    );
    note("bpftool map dump pinned …/counters, summed over all processors:");
    lines(&format!("redirected: {before} before, {after} after"));
    ensure!(
        after - before == 3,
        "3 requests, but redirected went from {before} to {after}"
    );
    check("3 requests, 3 connects redirected: counted in the kernel, not by the agent");

    for verb in ["status", "pods", "connections"] {
        note(&format!("mesh-agent {verb}"));
        lines(&agent.answer(verb)?);
    }
    drop(slow);
    Ok(agent)
}

fn take_over(scene: &Scene, binary: &Path, without: &[Seen]) -> Result<Agent> {
    let started = Instant::now();
    let agent = Agent::start(scene.lab(), binary, &scene.configuration())?;
    check(&format!(
        "ready again {} after its start",
        milliseconds(started.elapsed())
    ));
    let before = redirected(scene)?;
    ensure!(
        scene.requests()? == without,
        "results differ after the agent's return"
    );
    let after = redirected(scene)?;
    ensure!(
        after - before == 2,
        "2 requests, but redirected went from {before} to {after}"
    );
    check(&format!(
        "the same answers, redirected again (counter: {before} → {after})"
    ));
    Ok(agent)
}

fn end(scene: &Scene, agent: Agent, without: &[Seen]) -> Result<Duration> {
    let lab = scene.lab();
    let attached = lab::attached_programs(lab.cgroup())?;
    note("bpftool cgroup show, while it runs:");
    words(&attached);
    ensure!(
        !attached.is_empty(),
        "a running agent has no program attached"
    );
    let (status, log, took) = agent.terminate()?;
    ensure!(status.success(), "the agent ended with {status}:\n{log}");
    wait_until_detached(lab)?;
    let pins = lab.pins();
    let pinned: Vec<_> = std::fs::read_dir(&pins)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    ensure!(pinned.is_empty(), "still pinned: {pinned:?}");
    check(&format!(
        "it ended in {}; no program attached, nothing pinned at {}",
        milliseconds(took),
        pins.display()
    ));
    ensure!(
        scene.requests()? == without,
        "results differ after the agent's end"
    );
    check("and the clients work on without it");
    Ok(took)
}

/// The kernel detaches in the background once nothing holds a program's link any more.
fn wait_until_detached(lab: &Lab) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let left = lab::attached_programs(lab.cgroup())?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still attached: {left:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn redirected(scene: &Scene) -> Result<u64> {
    counter(scene, "redirected")
}

/// One counter, read from the pinned map.
fn counter(scene: &Scene, name: &str) -> Result<u64> {
    lab::counters(&scene.lab().pins())?
        .into_iter()
        .find(|(counter, _)| *counter == name)
        .map(|(_, value)| value)
        .with_context(|| format!("there is no counter {name}"))
}
