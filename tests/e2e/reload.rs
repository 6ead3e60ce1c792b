//! A changed configuration is applied whole or not at all, while the agent runs.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_tests::{Agent, Node, Pod, Process, proc_net_listens, scenario, wait_until};

use crate::peers::{CLIENT, OTHER, SERVER, at, behaviours};

const BOUND: Duration = Duration::from_secs(15);

struct Stage {
    first: Pod,
    second: Pod,
    _server: (Pod, Process),
}

impl Stage {
    fn new(node: &Node) -> Result<Self> {
        let pod = node.pod("server", SERVER, None)?;
        let process = behaviours(&pod, &["7001=identity", "7002=identity"])?;
        Ok(Self {
            first: node.pod("first", CLIENT, None)?,
            second: node.pod("second", OTHER, None)?,
            _server: (pod, process),
        })
    }
}

/// Connects once and tells whether that was captured.
fn is_captured(agent: &Agent, pod: &Pod, port: u16) -> Result<bool> {
    let before = agent.counter("redirected")?;
    let outcome = pod
        .python("connecting.py", ["plain", &at(SERVER, port)])?
        .json()?;
    ensure!(outcome["server"] == "server", "{outcome}");
    Ok(agent.counter("redirected")? > before)
}

#[test]
fn pods_and_exclusions_are_changed_without_a_restart() {
    scenario(|node| {
        let stage = Stage::new(node)?;
        let (first, second) = (&stage.first, &stage.second);
        let agent = node.agent(&node.config().pod(first))?;
        let pid = agent.pid();
        ensure!(is_captured(&agent, first, 7001)? && !is_captured(&agent, second, 7001)?);

        let changed = node
            .config()
            .pod_with(first, &["excludePorts: [7001]"])
            .pod(second);
        agent.rewrite_config(&changed.to_yaml())?;
        agent.wait_pod_state("second", "enrolled")?;
        wait_until(BOUND, "the exclusion to hold", || {
            Ok(!is_captured(&agent, first, 7001)?)
        })?;
        ensure!(is_captured(&agent, second, 7001)? && is_captured(&agent, first, 7002)?);

        // Written in place, as a plain editor does.
        fs::write(agent.config_path(), node.config().pod(second).to_yaml())?;
        wait_until(BOUND, "the first pod to be let go", || {
            Ok(!is_captured(&agent, first, 7002)?)
        })?;
        let mut probe = first.spawn(["sleep", "60"])?;
        wait_until(BOUND, "the agent to leave the first pod", || {
            Ok(!proc_net_listens(probe.pid(), 15001))
        })?;
        probe.kill()?;
        ensure!(
            is_captured(&agent, second, 7001)?,
            "the pod that stayed is not captured any more"
        );
        ensure!(agent.pid() == pid);
        agent.wait_idle()
    });
}

#[test]
fn a_connection_outlives_a_change_that_does_not_concern_its_pod() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &["7001=trickle,2"])?;
        let (first, second) = (
            node.pod("first", CLIENT, None)?,
            node.pod("second", OTHER, None)?,
        );
        let agent = node.agent(&node.config().pod(&first))?;
        let download = first.spawn_python("ending.py", ["slow-down", &at(SERVER, 7001)])?;
        agent.wait_captured()?;
        let changed = node
            .config()
            .pod_with(&first, &["excludePorts: [22]"])
            .pod(&second);
        agent.rewrite_config(&changed.to_yaml())?;
        agent.wait_pod_state("second", "enrolled")?;
        let outcome = download.finish(BOUND)?.json()?;
        ensure!(outcome["done"] == true, "{outcome}");
        agent.wait_idle()
    });
}

#[test]
fn a_broken_change_changes_nothing_and_the_next_good_one_is_applied() {
    scenario(|node| {
        let stage = Stage::new(node)?;
        let (first, second) = (&stage.first, &stage.second);
        let mut agent = node.agent(&node.config().pod(first))?;
        let plain_file = node.dir().join("not-a-namespace");
        fs::write(&plain_file, "")?;
        // Each of these has a good part too, which must not be applied either.
        let good = node.config().pod_with(first, &["excludePorts: [7001]"]);
        for (broken, word) in [
            (
                good.clone().pod_with(second, &["onAgentDwn: open"]),
                "onAgentDwn",
            ),
            (
                good.clone().agent("drainTimeout: soon").pod(second),
                "drainTimeout",
            ),
            (
                good.clone().pod(second).pod_at("third", &plain_file, &[]),
                "not-a-namespace",
            ),
        ] {
            agent.rewrite_config(&broken.to_yaml())?;
            wait_until(BOUND, &format!("a line in the log about {word}"), || {
                Ok(agent.log()?.contains(word))
            })?;
            ensure!(agent.is_running()?, "the agent ended");
            ensure!(
                is_captured(&agent, first, 7001)?,
                "{word}: half of the change was applied"
            );
            ensure!(
                !is_captured(&agent, second, 7001)?,
                "{word}: half of the change was applied"
            );
        }
        agent.rewrite_config(&good.pod(second).to_yaml())?;
        agent.wait_pod_state("second", "enrolled")?;
        ensure!(!is_captured(&agent, first, 7001)? && is_captured(&agent, second, 7001)?);
        agent.wait_idle()
    });
}

/// More than the kernel half has room for.
fn too_many_exclusions() -> String {
    let ports: Vec<_> = (1..=65535_u32).map(|port| port.to_string()).collect();
    format!("excludePorts: [{}]", ports.join(", "))
}

#[test]
fn a_change_that_the_kernel_half_has_no_room_for_changes_nothing() {
    scenario(|node| {
        let stage = Stage::new(node)?;
        let (first, second) = (&stage.first, &stage.second);
        let third = node.pod("third", "10.77.0.4", None)?;
        let small = node.config().pod(first).pod(second);
        let agent = node.agent(&small)?;
        let ports = too_many_exclusions();
        let lines = [ports.as_str(), "excludeCidrs: [10.1.0.0/16, 10.2.0.0/16]"];
        for large in [
            // A pod that is enrolled, before and after one that is fine; and one that is not.
            node.config().pod_with(first, &lines).pod(second),
            node.config().pod(first).pod_with(second, &lines),
            small.clone().pod_with(&third, &lines),
        ] {
            agent.rewrite_config(&large.to_yaml())?;
            wait_until(BOUND, "the change to be refused", || {
                let error = agent.status()?["configError"].clone();
                Ok(error
                    .as_str()
                    .is_some_and(|line| line.contains("exclusions")))
            })?;
            for pod in [first, second] {
                ensure!(agent.pod_state(pod.name())?.as_deref() == Some("enrolled"));
                ensure!(is_captured(&agent, pod, 7001)?, "{}", pod.name());
            }
            ensure!(agent.pod_state("third")?.is_none() && !is_captured(&agent, &third, 7001)?);
            let mut probe = third.spawn(["sleep", "60"])?;
            ensure!(
                !proc_net_listens(probe.pid(), 15001),
                "somebody listens in the pod that was refused"
            );
            probe.kill()?;
            let left = agent.map_dump("exclusions")?.len();
            ensure!(left == 0, "{left} exclusions are left behind");
            agent.rewrite_config(&small.to_yaml())?;
            wait_until(BOUND, "the good change to be applied", || {
                Ok(agent.status()?["configError"].is_null())
            })?;
        }
        agent.rewrite_config(&small.pod_with(&third, &["excludePorts: [7002]"]).to_yaml())?;
        agent.wait_pod_state("third", "enrolled")?;
        ensure!(is_captured(&agent, &third, 7001)? && !is_captured(&agent, &third, 7002)?);
        agent.wait_idle()
    });
}

#[test]
fn a_change_that_failed_is_tried_again_when_its_reason_passed() {
    scenario(|node| {
        let stage = Stage::new(node)?;
        let (first, second) = (&stage.first, &stage.second);
        let agent = node.agent(&node.config().pod(first))?;
        let taker = second
            .spawn_python("original_dst.py", ["15001"])?
            .listening(15001)?;
        agent.rewrite_config(&node.config().pod(first).pod(second).to_yaml())?;
        wait_until(BOUND, "the change to be refused", || {
            Ok(agent.status()?["configError"].is_string())
        })?;
        drop(taker);
        agent.wait_pod_state("second", "enrolled")?;
        ensure!(agent.status()?["configError"].is_null());
        ensure!(is_captured(&agent, second, 7001)?);
        ensure!(agent.log()?.matches("is not applied").count() == 1);
        agent.wait_idle()
    });
}
