//! SIGTERM lets open connections end, then leaves nothing behind.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Agent, BindMount, Node, Pod, Process, Signal, scenario, wait_until};

use crate::peers::{CLIENT, SERVER, at, behaviours};

const BOUND: Duration = Duration::from_secs(15);

/// A download that lasts `seconds`, under way through the agent.
struct Downloading {
    agent: Agent,
    client: Pod,
    download: Process,
    _server: (Pod, Process),
}

fn downloading(node: &Node, seconds: &str, drain: &str) -> Result<Downloading> {
    let server = node.pod("server", SERVER, None)?;
    let process = behaviours(
        &server,
        &[&format!("7001=trickle,{seconds}"), "7002=identity"],
    )?;
    let client = node.pod("client", CLIENT, None)?;
    let agent = node.agent(&node.config().agent(drain).pod(&client))?;
    let download = client.spawn_python("ending.py", ["slow-down", &at(SERVER, 7001)])?;
    agent.wait_captured()?;
    Ok(Downloading {
        agent,
        client,
        download,
        _server: (server, process),
    })
}

#[test]
fn sigterm_lets_an_open_transfer_end_and_leaves_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        scenario(|node| {
            let Downloading {
                agent,
                client,
                download,
                _server,
            } = downloading(node, "2", "drainTimeout: 8s")?;
            agent.signal(signal)?;
            // New connections work all the while, captured or direct.
            let meanwhile = client
                .python("connecting.py", ["plain", &at(SERVER, 7002)])?
                .json()?;
            ensure!(meanwhile["server"] == "server", "{meanwhile}");
            let outcome = download.finish(BOUND)?.json()?;
            ensure!(
                outcome["done"] == true && outcome["end"] == "end of file",
                "{outcome}"
            );
            agent.finish(BOUND)?;
            node.ensure_no_traces()?;
            let after = client
                .python("connecting.py", ["plain", &at(SERVER, 7002)])?
                .json()?;
            ensure!(after["seen"] == after["local"], "still not direct: {after}");
            Ok(())
        });
    }
}

#[test]
fn a_transfer_that_outlasts_the_drain_is_reset_and_never_looks_complete() {
    scenario(|node| {
        let Downloading {
            agent,
            client: _client,
            download,
            _server,
        } = downloading(node, "30", "drainTimeout: 1s")?;
        let started = Instant::now();
        agent.terminate(BOUND)?;
        let lasted = started.elapsed();
        ensure!(
            lasted >= Duration::from_millis(900),
            "it did not wait: {lasted:?}"
        );
        ensure!(
            lasted < Duration::from_secs(4),
            "it waited too long: {lasted:?}"
        );
        let outcome = download.finish(BOUND)?.json()?;
        ensure!(
            outcome["done"] == false && outcome["end"] == "ECONNRESET",
            "{outcome}"
        );
        node.ensure_no_traces()
    });
}

#[test]
fn an_idle_agent_ends_at_once() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let agent = node.agent(&node.config().pod(&client))?;
        let started = Instant::now();
        agent.terminate(BOUND)?;
        let lasted = started.elapsed();
        ensure!(lasted < Duration::from_secs(2), "it took {lasted:?}");
        node.ensure_no_traces()
    });
}

#[test]
fn sigterm_at_any_moment_of_the_start_leaves_nothing_behind() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let config = node.config().pod(&client);
        // Each is there when that step of the start is done.
        for step in ["events", "link_mesh_sockops", "link_mesh_connect6"] {
            let pin = node.pin_path().join(step);
            let agent = node.launch(&config)?;
            wait_until(BOUND, &format!("{step} to be pinned"), || Ok(pin.exists()))?;
            agent.terminate(BOUND).context(step)?;
            node.ensure_no_traces().context(step)?;
        }
        Ok(())
    });
}

#[test]
fn a_pin_that_cannot_be_removed_is_named() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let agent = node.agent(&node.config().pod(&client))?;
        let pin = node.pin_path().join("link_mesh_sockops");
        let file = node.dir().join("file");
        fs::write(&file, "")?;
        // A mount point cannot be removed.
        let mounted = BindMount::over(&file, &pin)?;
        agent.signal(Signal::SIGTERM)?;
        let finished = agent.ended(BOUND)?;
        drop(mounted);
        ensure!(finished.status.code() == Some(1), "{finished:?}");
        let last = finished.stderr.lines().last().unwrap_or_default();
        ensure!(last.contains("link_mesh_sockops"), "{finished:?}");
        ensure!(!finished.stderr.contains("stopped:"), "{finished:?}");
        let left: Vec<_> = fs::read_dir(node.pin_path())?.collect();
        ensure!(left.len() == 1, "the others were not removed: {left:?}");
        Ok(())
    });
}
