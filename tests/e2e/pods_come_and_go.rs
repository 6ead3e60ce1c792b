//! Pods appear and vanish while the agent runs; it follows without a restart.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Agent, Pod, scenario, wait_until};

use crate::peers::{CLIENT, SERVER, at, behaviours};

const IDENTITY: &str = "7001=identity";
const BOUND: Duration = Duration::from_secs(15);

/// Connects once and tells whether that was captured.
fn is_captured(agent: &Agent, pod: &Pod) -> Result<bool> {
    let before = agent.counter("redirected")?;
    let outcome = pod
        .python("connecting.py", ["plain", &at(SERVER, 7001)])?
        .json()?;
    ensure!(outcome["server"] == "server", "{outcome}");
    Ok(agent.counter("redirected")? > before)
}

#[test]
fn a_namespace_that_vanishes_is_unenrolled_and_enrolled_again_when_it_is_back() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &[IDENTITY])?;
        let client = node.pod("client", CLIENT, None)?;
        let agent = node.agent(&node.config().pod(&client))?;
        let files = agent.open_files()?;
        ensure!(is_captured(&agent, &client)?);

        drop(client);
        agent.wait_pod_state("client", "waiting")?;
        wait_until(BOUND, "the pod to leave the kernel's map", || {
            Ok(agent.map_dump("pods")?.is_empty())
        })?;

        let client = node.pod("client", CLIENT, None)?;
        agent.wait_pod_state("client", "enrolled")?;
        ensure!(
            is_captured(&agent, &client)?,
            "the pod that came back is not captured"
        );

        for _ in 0..5 {
            drop(node.pod("brief", "10.77.0.3", None)?);
        }
        agent.wait_idle()?;
        wait_until(
            BOUND,
            "the agent to close what it had open in the old namespace",
            || Ok(agent.open_files()? <= files),
        )
        .with_context(|| format!("{files} files at the start, {:?} now", agent.open_files()))
    });
}

#[test]
fn a_namespace_that_is_not_there_yet_is_waited_for() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &[IDENTITY])?;
        let first = node.pod("first", "10.77.0.3", None)?;
        let netns = first
            .netns_path()
            .with_file_name(format!("{}-late", node.id()));
        let agent = node.agent(&node.config().pod(&first).pod_at("late", &netns, &[]))?;
        ensure!(
            agent.pod_state("late")?.as_deref() == Some("waiting"),
            "{}",
            agent.json("pods")?
        );
        let late = node.pod("late", CLIENT, None)?;
        ensure!(late.netns_path() == netns);
        agent.wait_pod_state("late", "enrolled")?;
        ensure!(is_captured(&agent, &late)?);
        agent.wait_idle()
    });
}

#[test]
fn a_pod_that_vanishes_with_connections_open_leaves_no_entry_behind() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &["7001=trickle,30"])?;
        let client = node.pod("client", CLIENT, None)?;
        let agent = node.agent(&node.config().pod(&client))?;
        let mut download = client.spawn_python("ending.py", ["slow-down", &at(SERVER, 7001)])?;
        agent.wait_captured()?;
        download.kill()?;
        drop((download, client));
        agent.wait_pod_state("client", "waiting")?;
        agent.wait_idle()
    });
}
