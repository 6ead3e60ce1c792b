//! Pods whose inside changes: loopback, IPv6 and the agent's own listener come and go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Agent, Pod, scenario, wait_until};

use crate::peers::{CLIENT, SERVER, SERVER6, at, behaviours};

const BOUND: Duration = Duration::from_secs(15);
const IDENTITY: &str = "7001=identity";

/// Connects once and tells whether that was captured.
fn is_captured(agent: &Agent, pod: &Pod, host: &str) -> Result<bool> {
    let before = agent.counter("redirected")?;
    let outcome = pod
        .python("connecting.py", ["plain", &at(host, 7001)])?
        .json()?;
    ensure!(outcome["server"] == "server", "{outcome}");
    Ok(agent.counter("redirected")? > before)
}

fn reason(agent: &Agent, name: &str) -> Result<String> {
    let pods = agent.json("pods")?;
    let pods = pods.as_array().context("no list")?;
    let pod = pods.iter().find(|pod| pod["name"] == name);
    Ok(pod
        .and_then(|pod| pod["reason"].as_str())
        .unwrap_or_default()
        .to_owned())
}

#[test]
fn a_pod_whose_loopback_is_down_is_waited_for() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &[IDENTITY])?;
        let client = node.pod("client", CLIENT, None)?;
        client.ip("link set lo down")?;
        let agent = node.agent(&node.config().pod(&client))?;
        ensure!(agent.pod_state("client")?.as_deref() == Some("waiting"));
        let reason = reason(&agent, "client")?;
        ensure!(
            reason.contains("client") && reason.contains(" lo "),
            "{reason}"
        );
        ensure!(!is_captured(&agent, &client, SERVER)?);
        client.ip("link set lo up")?;
        agent.wait_pod_state("client", "enrolled")?;
        ensure!(is_captured(&agent, &client, SERVER)?);
        agent.wait_idle()
    });
}

#[test]
fn a_change_with_a_pod_whose_loopback_is_down_is_applied() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &[IDENTITY])?;
        let client = node.pod("client", CLIENT, None)?;
        let late = node.pod("late", "10.77.0.3", None)?;
        late.ip("link set lo down")?;
        let agent = node.agent(&node.config())?;
        agent.rewrite_config(&node.config().pod(&late).pod(&client).to_yaml())?;
        agent.wait_pod_state("client", "enrolled")?;
        ensure!(agent.pod_state("late")?.as_deref() == Some("waiting"));
        late.ip("link set lo up")?;
        agent.wait_pod_state("late", "enrolled")?;
        ensure!(is_captured(&agent, &late, SERVER)?);
        agent.wait_idle()
    });
}

#[test]
fn loopback_that_goes_away_stops_the_redirection_until_it_is_back() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &[IDENTITY])?;
        let client = node.pod("client", CLIENT, None)?;
        // Then connections that are redirected by mistake leave by it and hang.
        client.ip(&format!("route add default via {SERVER}"))?;
        let agent = node.agent(&node.config().pod(&client))?;
        for (gone, back, word) in [
            ("link set lo down", "link set lo up", "down"),
            (
                "addr del 127.0.0.1/8 dev lo\naddr add 127.0.0.1/32 dev lo",
                "addr add 127.0.0.1/8 dev lo",
                "127.0.0.0/8",
            ),
        ] {
            ensure!(is_captured(&agent, &client, SERVER)?);
            client.ip(gone)?;
            agent.wait_pod_state("client", "waiting")?;
            let reason = reason(&agent, "client")?;
            ensure!(reason.contains(word), "{reason}");
            ensure!(!is_captured(&agent, &client, SERVER)?, "{word}");
            client.ip(back)?;
            agent.wait_pod_state("client", "enrolled")?;
        }
        ensure!(is_captured(&agent, &client, SERVER)?);
        agent.wait_idle()
    });
}

#[test]
fn a_pod_that_is_closed_does_not_get_out_by_taking_its_loopback_down() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &[IDENTITY])?;
        let client = node.pod("client", CLIENT, None)?;
        let config = node.config().pod_with(&client, &["onAgentDown: closed"]);
        let agent = node.agent(&config)?;
        client.ip("link set lo down")?;
        agent.wait_pod_state("client", "waiting")?;
        let refused = client.python("connecting.py", ["plain", &at(SERVER, 7001)])?;
        ensure!(
            refused.stderr.contains("ConnectionRefusedError"),
            "{}",
            refused.stderr
        );
        Ok(())
    });
}

#[test]
fn a_listener_that_is_destroyed_inside_the_pod_is_opened_again() {
    scenario(|node| {
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &[IDENTITY])?;
        let client = node.pod("client", CLIENT, None)?;
        let agent = node.agent(&node.config().pod(&client))?;
        ensure!(is_captured(&agent, &client, SERVER)?);
        for _ in 0..2 {
            client
                .run(["ss", "-K", "-ltn", "sport = :15001"])?
                .success()?;
            wait_until(BOUND, "the pod to be captured again", || {
                is_captured(&agent, &client, SERVER)
            })?;
        }
        ensure!(
            agent.log()?.matches("opened the missing listener").count() >= 2,
            "{}",
            agent.log()?
        );
        agent.wait_idle()
    });
}

#[test]
fn ipv6_that_comes_later_is_captured() {
    scenario(|node| {
        let server = node.pod("server", SERVER, Some(SERVER6))?;
        let _server = behaviours(&server, &[IDENTITY])?;
        let client = node.pod("client", CLIENT, None)?;
        for interface in ["all", "lo", "eth0"] {
            client.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1")?;
        }
        let agent = node.agent(&node.config().pod(&client))?;
        ensure!(is_captured(&agent, &client, SERVER)?);
        for interface in ["all", "lo", "eth0"] {
            client.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
        }
        client.ip("addr add fd77::2/64 dev eth0 nodad")?;
        wait_until(BOUND, "IPv6 to be captured", || {
            is_captured(&agent, &client, SERVER6)
        })?;
        agent.wait_idle()
    });
}
