//! A pod can neither pass for the agent nor use it for what it is not there for.

use anyhow::ensure;
use mesh_tests::{Scenario, scenario};

use crate::peers::{CLIENT, CLIENT6, SERVER, at, behaviours};

#[test]
fn neither_a_mark_nor_root_nor_a_bound_socket_exempts_an_app_from_capture() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &["7001=identity"])?;
        let agent = node.agent(&node.config().pod(&client))?;
        // Marks that meshes are known to use for themselves.
        let marks = ["0x1", "0x539", "0xffffffff"];
        for mark in marks {
            let outcome = client
                .python("connecting.py", ["marked", mark, &at(SERVER, 7001)])?
                .json()?;
            ensure!(
                outcome["uid"] == 0 && outcome["server"] == "server",
                "{outcome}"
            );
            ensure!(
                outcome["seen"] != outcome["local"],
                "the app went direct: {outcome}"
            );
        }
        ensure!(
            agent.counter("redirected")? == marks.len() as u64,
            "{}",
            agent.status()?
        );
        ensure!(
            agent.counter("ownSocket")? >= marks.len() as u64,
            "{}",
            agent.status()?
        );
        agent.wait_idle()
    });
}

#[test]
fn an_app_cannot_share_or_take_the_agents_port() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let _agent = node.agent(&node.config().pod(&client))?;
        for address in [
            "0.0.0.0:15001",
            "127.0.0.1:15001",
            "127.77.7.7:15001",
            "[::1]:15001",
            "[::]:15001",
        ] {
            let outcome = client.python("connecting.py", ["taken", address])?.json()?;
            for option in ["SO_REUSEADDR", "SO_REUSEPORT"] {
                ensure!(outcome[option] == "EADDRINUSE", "{address}: {outcome}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_listener_on_the_dead_agents_port_gets_no_connections() {
    for (choice, expected) in [("open", "server"), ("closed", "refused")] {
        Scenario::default().run(|node| {
            let client = node.pod("client", CLIENT, None)?;
            let server = node.pod("server", SERVER, None)?;
            let _server = behaviours(&server, &["7001=identity"])?;
            let line = format!("onAgentDown: {choice}");
            let mut agent = node.agent(&node.config().pod_with(&client, &[&line]))?;
            agent.kill9()?;
            let _impostor = behaviours(&client, &["15001=identity"])?;
            let finished = client.python("connecting.py", ["plain", &at(SERVER, 7001)])?;
            if expected == "refused" {
                ensure!(
                    finished.stderr.contains("ConnectionRefusedError"),
                    "{finished:?}"
                );
            } else {
                let outcome = finished.json()?;
                ensure!(
                    outcome["server"] == expected && outcome["seen"] == outcome["local"],
                    "{outcome}"
                );
            }
            Ok(())
        });
    }
}

#[test]
fn the_agent_is_no_open_proxy() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let outsider = node.pod("outsider", SERVER, Some("fd77::10"))?;
        let agent = node.agent(&node.config().pod(&client))?;
        for host in [CLIENT, "[fd77::2]"] {
            let url = format!("telnet://{host}:15001");
            let finished = outsider.run(["curl", "-sS", "-m", "2", &url])?;
            ensure!(
                !finished.status.success(),
                "an outsider got in at {host}: {finished:?}"
            );
        }
        ensure!(
            agent.status()?["connections"]["total"] == 0,
            "{}",
            agent.status()?
        );
        // From inside, but with no destination to go to: ended soon, never sent to itself.
        for target in ["127.0.0.1:15001", "[::1]:15001"] {
            let outcome = client
                .python("ending.py", ["refused", target, "read"])?
                .json()?;
            ensure!(
                outcome["seconds"].as_f64().unwrap_or(f64::MAX) < 1.0,
                "{outcome}"
            );
            ensure!(outcome["then"] != "data", "{outcome}");
        }
        agent.wait_idle()
    });
}
