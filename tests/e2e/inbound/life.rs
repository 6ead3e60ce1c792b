//! Agents and servers that come and go.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Signal, scenario, wait_until};

use super::{BOUND, STEERING, accepted, ask_one, config, ensure_forgotten, pods, servers};
use crate::peers::{CLIENT, SERVER, SERVER6, at};

#[test]
fn without_the_agent_servers_are_reached_directly_or_not_as_the_pod_chose() {
    for steering in STEERING {
        for choice in ["open", "closed"] {
            scenario(|node| {
                let (client, server) = pods(node)?;
                let down = format!("onAgentDown: {choice}");
                let mut agent = node.agent(&config(node, &server, steering, &[&down]))?;
                let _servers = servers(&server, &["[::]:7082"])?;
                let through = ask_one(&client, SERVER, 7082)?;
                ensure!(
                    through["peer"] == at(CLIENT, 0).replace(":0", ":mine"),
                    "{through}"
                );
                agent.kill9()?;
                for host in [SERVER, SERVER6] {
                    let outcome = ask_one(&client, host, 7082)?;
                    if choice == "open" {
                        ensure!(outcome["echoed"] == 100_000, "{steering}: {outcome}");
                    } else {
                        ensure!(outcome == "ECONNREFUSED", "{steering}: {outcome}");
                    }
                }
                agent.start_again()?;
                let before = accepted(&agent)?;
                ensure!(ask_one(&client, SERVER, 7082)? == through);
                ensure!(accepted(&agent)? == before + 1);
                Ok(())
            });
        }
    }
}

#[test]
fn a_stopped_agent_leaves_its_servers_reachable_and_the_next_one_takes_them_over() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let mut agent = node.agent(&config(node, &server, "bind", &[]))?;
        let running = servers(&server, &["0.0.0.0:7081"])?;
        agent.signal(Signal::SIGTERM)?;
        wait_until(BOUND, "the agent to end", || Ok(!agent.is_running()?))?;
        let outcome = ask_one(&client, SERVER, 7081)?;
        ensure!(outcome["echoed"] == 100_000, "{outcome}");
        agent.start_again()?;
        let before = accepted(&agent)?;
        ensure!(ask_one(&client, SERVER, 7081)?["echoed"] == 100_000);
        ensure!(accepted(&agent)? == before + 1);
        drop(running);
        ensure_forgotten(&agent)?;
        agent.terminate(BOUND)
    });
}

#[test]
fn servers_that_listen_already_are_captured_too() {
    for steering in STEERING {
        scenario(|node| {
            let (client, server) = pods(node)?;
            let running = servers(&server, &["[::]:7082", "0.0.0.0:7081"])?;
            let agent = node.agent(&config(node, &server, steering, &[]))?;
            for (host, port) in [(SERVER, 7081), (SERVER, 7082), (SERVER6, 7082)] {
                let outcome = ask_one(&client, host, port)?;
                ensure!(outcome["echoed"] == 100_000, "{outcome}");
            }
            ensure!(accepted(&agent)? == 3);
            drop(running);
            ensure_forgotten(&agent)?;
            ensure!(ask_one(&client, SERVER, 7082)? == "ECONNREFUSED");
            Ok(())
        });
    }
}

#[test]
fn workers_that_share_a_port_come_and_go() {
    for steering in STEERING {
        scenario(|node| {
            let (client, server) = pods(node)?;
            let agent = node.agent(&config(node, &server, steering, &[]))?;
            let mut workers = Vec::new();
            for _ in 0..4 {
                workers.push(servers(&server, &["0.0.0.0:7081/reuseport"])?);
            }
            while let Some(worker) = workers.pop() {
                let outcome = ask_one(&client, SERVER, 7081)?;
                ensure!(
                    outcome["echoed"] == 100_000,
                    "{} left: {outcome}",
                    workers.len()
                );
                drop(worker);
            }
            ensure!(ask_one(&client, SERVER, 7081)? == "ECONNREFUSED");
            // At once again, with connections of before in TIME_WAIT.
            let _again = servers(&server, &["0.0.0.0:7081/reuseport"])?;
            ensure!(ask_one(&client, SERVER, 7081)?["echoed"] == 100_000);
            ensure!(accepted(&agent)? == 5);
            Ok(())
        });
    }
}

/// No connection is refused once listen has returned.
#[test]
fn a_server_that_says_it_listens_is_never_found_missing() {
    const TIMES: usize = 60;
    for steering in STEERING {
        scenario(|node| {
            let (client, server) = pods(node)?;
            let agent = node.agent(&config(node, &server, steering, &[]))?;
            let mut knocking = client.spawn_python("knock.py", [SERVER])?;
            knocking.wait_stdout("knocking", BOUND)?;
            let mut ports = knocking.take_stdin().context("no stdin")?;
            for round in 0..TIMES {
                let port = 7100 + round;
                let spec = format!("0.0.0.0:{port}");
                let mut one = server.spawn_python("listen_once.py", [&spec])?;
                one.wait_stdout("listening", BOUND)?;
                writeln!(ports, "{port}")?;
                knocking.wait_stdout(&format!("{port} ok"), BOUND)?;
                one.finish(BOUND)?.success()?;
            }
            ensure!(accepted(&agent)? == TIMES as u64);
            Ok(())
        });
    }
}

#[test]
fn capture_is_turned_off_and_on_while_servers_run() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let on = config(node, &server, "bind", &[]);
        let off = node
            .config()
            .pod_with(&server, &["capture: {outbound: false}"]);
        let agent = node.agent(&on)?;
        let _servers = servers(&server, &["0.0.0.0:7081", "10.77.0.10:7084"])?;
        let reach = |through: bool| -> Result<()> {
            let before = accepted(&agent)?;
            for port in [7081, 7084] {
                let outcome = ask_one(&client, SERVER, port)?;
                ensure!(outcome["echoed"] == 100_000, "{port}: {outcome}");
            }
            let expected = if through { before + 2 } else { before };
            ensure!(
                accepted(&agent)? == expected,
                "through the agent: {through}"
            );
            Ok(())
        };
        reach(true)?;
        for (config, through) in [(&off, false), (&on, true)] {
            agent.rewrite_config(&config.to_yaml())?;
            wait_until(BOUND, "the change to be applied", || {
                let servers = agent.json("pods")?[0]["servers"].as_array().map(Vec::len);
                Ok(servers == Some(if through { 2 } else { 0 }))
            })?;
            reach(through)?;
        }
        Ok(())
    });
}
