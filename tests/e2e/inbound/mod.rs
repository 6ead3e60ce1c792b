//! Inbound capture: servers are reached through the agent, and neither they nor their clients notice.

mod life;
mod programs;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Agent, Config, Node, Pod, Process, scenario, wait_until};
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, SERVER, SERVER6, at};

pub const BOUND: Duration = Duration::from_secs(20);
pub const STEERING: [&str; 2] = ["bind", "skLookup"];

/// A client that is not enrolled, and a pod for servers.
pub fn pods(node: &Node) -> Result<(Pod, Pod)> {
    Ok((
        node.pod("client", CLIENT, Some(CLIENT6))?,
        node.pod("server", SERVER, Some(SERVER6))?,
    ))
}

/// Outbound is left alone, so that clients in the pod are seen as they are.
pub fn config(node: &Node, server: &Pod, steering: &str, more: &[&str]) -> Config {
    let capture =
        format!("capture: {{outbound: false, inbound: true, inboundSteering: {steering}}}");
    let lines: Vec<&str> = std::iter::once(capture.as_str())
        .chain(more.iter().copied())
        .collect();
    node.config().pod_with(server, &lines)
}

pub fn servers(pod: &Pod, specs: &[&str]) -> Result<Process> {
    let mut servers = pod.spawn_python("inbound_server.py", specs)?;
    servers.wait_stdout("ready", BOUND)?;
    Ok(servers)
}

pub fn ask(pod: &Pod, targets: &[String]) -> Result<Value> {
    pod.python("inbound_client.py", targets)?.json()
}

/// What one client is told.
pub fn ask_one(pod: &Pod, host: &str, port: u16) -> Result<Value> {
    let target = at(host, port);
    Ok(ask(pod, std::slice::from_ref(&target))?[&target].clone())
}

pub fn accepted(agent: &Agent) -> Result<u64> {
    agent.counter("inboundAccepted")
}

/// Nothing is left once the servers are gone.
pub fn ensure_forgotten(agent: &Agent) -> Result<()> {
    wait_until(BOUND, "servers to be forgotten", || {
        Ok(agent.map_dump("inbound_ports")?.is_empty()
            && agent.map_dump("inbound_peers")?.is_empty())
    })
}

const SPECS: [&str; 5] = [
    "0.0.0.0:7081",
    "[::]:7082",
    "[::]:7083/v6only",
    "10.77.0.10:7084",
    "[fd77::10]:7085",
];

/// Every way to reach them, from outside and from inside.
fn everything(client: &Pod, server: &Pod) -> Result<Vec<Value>> {
    let across = |hosts: &[&str]| -> Vec<String> {
        (7081..=7085)
            .flat_map(|port| hosts.iter().map(move |host| at(host, port)))
            .collect()
    };
    Ok(vec![
        ask(client, &across(&[SERVER, SERVER6]))?,
        ask(
            server,
            &across(&["127.0.0.1", "127.0.0.2", "::1", SERVER, SERVER6]),
        )?,
    ])
}

fn same_as_without(steering: &str) {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let reference = {
            let _servers = servers(&server, &SPECS)?;
            everything(&client, &server)?
        };
        let agent = node.agent(&config(node, &server, steering, &[]))?;
        let mut running = servers(&server, &SPECS)?;
        for spec in SPECS {
            let name = spec.split('/').next().unwrap_or_default();
            running.wait_stdout(&format!("name {name}"), BOUND)?;
        }
        ensure!(agent.counter("inboundListening")? == 5);
        let rewritten = if steering == "bind" { 3 } else { 0 };
        ensure!(agent.counter("bindsRewritten")? == rewritten);
        let through = everything(&client, &server)?;
        // A client in the pod has another port towards the agent than the agent towards the server.
        let text = |outcomes: &[Value]| {
            serde_json::to_string_pretty(outcomes).map(|text| text.replace(":other", ":mine"))
        };
        ensure!(
            text(&through)? == text(&reference)?,
            "{}\nwithout the agent:\n{}",
            text(&through)?,
            text(&reference)?
        );
        let outside = through[0].as_object().context("no outcomes")?;
        let answered = outside.values().filter(|seen| seen.is_object()).count();
        ensure!(answered == 6 && accepted(&agent)? >= 6, "{outside:?}");
        drop(running);
        ensure_forgotten(&agent)
    });
}

#[test]
fn servers_and_clients_see_what_they_would_without_the_agent() {
    same_as_without("bind");
}

#[test]
fn so_they_do_when_servers_are_left_where_they_are() {
    same_as_without("skLookup");
}

#[test]
fn the_agent_shows_servers_and_connections() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let agent = node.agent(&config(node, &server, "bind", &[]))?;
        let _servers = servers(&server, &["0.0.0.0:7081"])?;
        let pods = agent.json("pods")?;
        ensure!(
            pods[0]["servers"] == serde_json::json!(["0.0.0.0:7081"]),
            "{pods}"
        );
        let mut held = client.spawn_python("hold.py", [at(SERVER, 7081)])?;
        held.wait_stdout("connected", BOUND)?;
        wait_until(BOUND, "the connection to be shown", || {
            let open = agent.json("connections")?;
            Ok(open[0]["direction"] == "inbound"
                && open[0]["originalDestination"] == at(SERVER, 7081)
                && open[0]["via"] == "127.0.0.1:7081")
        })
    });
}

#[test]
fn excluded_ports_port_0_and_udp_are_left_alone() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let exclude = "excludeInboundPorts: [7081]";
        let agent = node.agent(&config(node, &server, "bind", &[exclude]))?;
        let mut any = servers(&server, &["0.0.0.0:7081", "0.0.0.0:0"])?;
        any.wait_stdout("name 0.0.0.0:7081", BOUND)?;
        ensure!(ask_one(&client, SERVER, 7081)?["echoed"] == 100_000);
        ensure!(accepted(&agent)? == 0 && agent.counter("bindsRewritten")? == 0);
        // One whose port the kernel chose is captured all the same, where it is.
        let pods = agent.json("pods")?;
        let listening = pods[0]["servers"].as_array().context("no servers")?;
        ensure!(listening.len() == 1, "{pods}");
        let port = listening[0]
            .as_str()
            .and_then(|name| name.rsplit_once(':')?.1.parse().ok())
            .context("no port")?;
        ensure!(ask_one(&client, SERVER, port)?["echoed"] == 100_000);
        ensure!(accepted(&agent)? == 1);
        let mut echo = server.spawn_python("udp.py", ["serve", "7053"])?;
        echo.wait_stdout("ready", BOUND)?;
        let outcome = client
            .python("udp.py", ["unconnected", &at(SERVER, 7053)])?
            .json()?;
        ensure!(outcome["from"] == at(SERVER, 7053), "{outcome}");
        Ok(())
    });
}

#[test]
fn a_socket_that_binds_a_port_and_then_connects_gets_where_it_wants() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let agent = node.agent(&config(node, &server, "bind", &[]))?;
        let _servers = servers(&client, &["[::]:7082"])?;
        for (family, host) in [
            ("0.0.0.0", CLIENT),
            ("[::]", CLIENT6),
            ("[::]", "::ffff:10.77.0.2"),
        ] {
            let outcome = server
                .python(
                    "bind_then_connect.py",
                    [&format!("{family}:7999"), &at(host, 7082)],
                )?
                .json()?;
            ensure!(
                outcome["peer"] == at(host.trim_start_matches("::ffff:"), 7082),
                "{outcome}"
            );
            let seen = outcome["seen"].as_str().unwrap_or_default();
            ensure!(
                seen.starts_with("10.77.0.10:") || seen.starts_with("[fd77::10]:"),
                "{outcome}"
            );
        }
        ensure!(agent.counter("redirected")? == 3);
        Ok(())
    });
}

#[test]
fn captured_pods_reach_each_other() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let both = "capture: {outbound: true, inbound: true}";
        let config = node
            .config()
            .pod_with(&client, &[both])
            .pod_with(&server, &[both]);
        let agent = node.agent(&config)?;
        let _servers = servers(&server, &["[::]:7082"])?;
        for host in [SERVER, SERVER6] {
            let outcome = ask_one(&client, host, 7082)?;
            let own = if host == SERVER { CLIENT } else { CLIENT6 };
            let seen = outcome["peer"].as_str().unwrap_or_default();
            ensure!(seen == at(own, 0).replace(":0", ":other"), "{outcome}");
            ensure!(outcome["name"] == at(host, 7082), "{outcome}");
        }
        // And itself, by its own address.
        let outcome = ask_one(&server, SERVER, 7082)?;
        ensure!(outcome["echoed"] == 100_000, "{outcome}");
        ensure!(accepted(&agent)? == 3 && agent.counter("redirected")? == 3);
        Ok(())
    });
}

#[test]
fn a_pod_without_ipv6_and_one_with_nothing_else() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        for interface in ["lo", "eth0"] {
            server.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1")?;
        }
        let agent = node.agent(&config(node, &server, "bind", &[]))?;
        let _servers = servers(&server, &["[::]:7082", "[::]:7083/v6only", "0.0.0.0:7083"])?;
        for port in [7082, 7083] {
            ensure!(ask_one(&client, SERVER, port)?["echoed"] == 100_000);
            ensure!(ask_one(&server, "127.0.0.1", port)?["echoed"] == 100_000);
        }
        ensure!(accepted(&agent)? == 2);
        Ok(())
    });
    scenario(|node| {
        let (client, server) = pods(node)?;
        server.ip(&format!("addr del {SERVER}/24 dev eth0"))?;
        let agent = node.agent(&config(node, &server, "bind", &[]))?;
        let _servers = servers(&server, &["[::]:7082", "[fd77::10]:7085"])?;
        for port in [7082, 7085] {
            let outcome = ask_one(&client, SERVER6, port)?;
            ensure!(outcome["name"] == at(SERVER6, port), "{outcome}");
        }
        ensure!(accepted(&agent)? == 2);
        Ok(())
    });
}
