//! What happens at the limits: a full map, a hundred pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Config, Node, Pod, Process, Scenario, say, scenario, wait_until};
use serde_json::Value;

use crate::peers::{CLIENT, SERVER, behaviours};

const CAPACITY: u64 = 1024;
const HELD: u64 = 1200;

/// Holds more connections than the map has room for.
fn overfilled(node: &Node, on_agent_down: &str) -> Result<(Value, Value)> {
    let server = node.pod("server", SERVER, None)?;
    let client = node.pod("client", CLIENT, None)?;
    let _server: (Pod, Process) = {
        let process = server
            .spawn_python("crowd_server.py", ["server", "9000"])?
            .listening(9000)?;
        (server, process)
    };
    let config = node.config().agent(&format!("maxConnections: {CAPACITY}"));
    let agent = node.agent(&config.pod_with(&client, &[on_agent_down]))?;
    let target = format!("server={SERVER}:9000");
    let outcome = client
        .python("crowd_client.py", [&HELD.to_string(), "0", "0", &target])?
        .json()?;
    agent.wait_idle()?;
    // And it is not full for good.
    let redirected = agent.counter("redirected")?;
    let again = client
        .python("crowd_client.py", ["10", "0", "0", &target])?
        .json()?;
    ensure!(
        again["held"] == 10 && agent.counter("redirected")? == redirected + 10,
        "{again}"
    );
    let status = agent.status()?;
    agent.wait_idle()?;
    Ok((outcome, status))
}

#[test]
fn a_full_map_with_open_lets_connects_go_direct_and_counts_them() {
    scenario(|node| {
        let (outcome, status) = overfilled(node, "onAgentDown: open")?;
        ensure!(outcome["held"] == HELD && outcome["lost"] == 0, "{outcome}");
        let direct = status["counters"]["mapFullOpen"]
            .as_u64()
            .context("no counter")?;
        ensure!(
            (HELD - CAPACITY..HELD).contains(&direct),
            "{direct} went direct: {status}"
        );
        Ok(())
    });
}

#[test]
fn a_full_map_with_closed_refuses_connects_and_counts_them() {
    scenario(|node| {
        let (outcome, status) = overfilled(node, "onAgentDown: closed")?;
        let refused = status["counters"]["mapFullRefused"]
            .as_u64()
            .context("no counter")?;
        ensure!(
            (HELD - CAPACITY..HELD).contains(&refused),
            "{refused} were refused: {status}"
        );
        ensure!(outcome["errors"]["ECONNREFUSED"] == refused, "{outcome}");
        ensure!(
            outcome["held"] == HELD - refused && outcome["lost"] == 0,
            "{outcome}"
        );
        Ok(())
    });
}

#[test]
fn without_descriptors_left_connections_wait_and_none_is_reset() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let client = node.pod("client", CLIENT, None)?;
        let _server = behaviours(&server, &["7001=echo"])?;
        let agent = node.agent(&node.config().pod(&client))?;
        let pid = agent.pid().to_string();
        // Room for 64 connections beside the agent's reserve and its pipes.
        let lowered = std::process::Command::new("prlimit")
            .args(["--pid", &pid, "--nofile=288:288"])
            .status()?;
        ensure!(lowered.success(), "prlimit: {lowered}");
        let outcome = client
            .python("ending.py", ["crowded", &format!("{SERVER}:7001"), "300"])?
            .json()?;
        ensure!(
            outcome["answered"] == 300 && outcome["first"] == 64,
            "{outcome}"
        );
        let log = agent.log()?;
        let said = log.matches("open-files limit").count();
        ensure!((1..=3).contains(&said), "said {said} times:\n{log}");
        agent.wait_idle()
    });
}

#[test]
fn three_hundred_readers_that_stall_cost_little_memory() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let client = node.pod("client", CLIENT, None)?;
        let mut args = vec!["stalled".to_owned(), format!("{SERVER}:7001")];
        args.push("300".to_owned());
        let _server = behaviours(&server, &["7001=flood"])?;
        let agent = node.agent(&node.config().pod(&client))?;
        let before = agent.resident_bytes()?;
        let mut readers = client.spawn_python("ending.py", args)?;
        // Until nothing moves any more.
        let moved = || -> Result<u64> {
            let connections = agent.json("connections")?;
            let connections = connections.as_array().context("no list")?;
            let bytes = connections
                .iter()
                .filter_map(|connection| connection["bytesReceived"].as_u64());
            Ok(if connections.len() < 300 {
                0
            } else {
                bytes.sum()
            })
        };
        let mut last = 0;
        wait_until(Duration::from_mins(1), "the readers to stall", || {
            std::thread::sleep(Duration::from_millis(500));
            let now = moved()?;
            Ok(now > 0 && std::mem::replace(&mut last, now) == now)
        })?;
        let grown = agent.resident_bytes()?.saturating_sub(before);
        readers.kill()?;
        agent.wait_idle()?;
        let kept = agent.resident_bytes()?.saturating_sub(before);
        say(&format!(
            "300 stalled readers: {} KiB, {} KiB after them",
            grown / 1024,
            kept / 1024
        ));
        // A direction holds what its reader had no room for, not a whole buffer of 256 KiB.
        ensure!(grown < 45 << 20, "the agent grew by {grown} bytes");
        Ok(())
    });
}

#[test]
fn a_hundred_pods_without_traffic_cost_less_than_20_mib() {
    Scenario::default().run(|node| {
        let pods: Vec<Pod> = (0..100)
            .map(|number| {
                node.pod(
                    &format!("p{number}"),
                    &format!("10.77.0.{}", number + 2),
                    None,
                )
            })
            .collect::<Result<_>>()?;
        let config = pods.iter().fold(node.config(), Config::pod);
        let agent = node.agent(&config)?;
        let resident = agent.resident_bytes()?;
        say(&format!("100 idle pods: {} KiB resident", resident / 1024));
        ensure!(
            agent.status()?["pods"]["enrolled"] == 100,
            "{}",
            agent.status()?
        );
        ensure!(resident < 20 << 20, "{resident} bytes");
        // A pod still works among so many, and the agent leaves them all when it ends.
        let _server = behaviours(&pods[7], &["7001=identity"])?;
        let target = format!("{}:7001", pods[7].address());
        let outcome = pods[93]
            .python("connecting.py", ["plain", &target])?
            .json()?;
        ensure!(outcome["server"] == "p7", "{outcome}");
        agent.wait_idle()?;
        agent.terminate(Duration::from_secs(15))?;
        node.ensure_no_traces()
    });
}
