//! Connections that carry no requests that the agent knows of.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Scenario, say, wait_until};
use serde_json::Value;

use super::{
    BOUND, EVERY, Exact, WEB, admin,
    truth::{FAR, link},
};
use crate::peers::at;

const COUNT: u64 = 5;

/// The figures of `web`, once so many connections were looked at.
fn figures(node: &mesh_tests::Node, count: u64) -> Result<Value> {
    let mut web = Value::Null;
    wait_until(BOUND, "the connections", || {
        let latency = admin(node, "/latency")?;
        web = latency["destinations"][0]["sinceStart"].clone();
        Ok(web["connections"].as_u64() >= Some(count))
    })?;
    Ok(web)
}

/// A server that says something itself, as databases do: the network is 10 ms away, and loses a segment.
#[test]
fn the_network_of_a_connection_without_requests_is_told() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let mut link = link(&exact, [5, 5])?;
        let far = at(FAR, 8094);
        let script = format!(
            "import socket\n\
             listener = socket.create_server(('{FAR}', 8094))\n\
             print('ready', flush=True)\n\
             while True:\n    \
                 connection, _ = listener.accept()\n    \
                 connection.sendall(b'hello')\n    \
                 while data := connection.recv(65536):\n        \
                     connection.sendall(data)\n    \
                 connection.close()"
        );
        let mut server = exact.server.spawn([mesh_tests::python(), "-c", &script])?;
        server.wait_stdout("ready", BOUND)?;
        let config = exact.config_at(node, &far, EVERY, "{}");
        let agent = node.agent(&config)?;
        let client = format!(
            "import socket\n\
             connection = socket.create_connection(('{WEB}', 80))\n\
             assert connection.recv(5) == b'hello'\n\
             for number in range(20):\n    \
                 connection.sendall(b'ping\\n')\n    \
                 assert connection.recv(5) == b'ping\\n'"
        );
        let ask = || -> Result<()> {
            let argv = [mesh_tests::python(), "-c", &client];
            exact.client.run(argv)?.success().map(drop)
        };
        for _ in 0..COUNT {
            ask()?;
        }
        let web = figures(node, COUNT)?;
        let p50 = web["times"]["roundTrip"]["p50"]
            .as_f64()
            .context("no figure")?;
        say(&format!("{web}"));
        ensure!((9_500.0..20_000.0).contains(&p50), "{web}");
        ensure!(web["count"] == 0 && web["connections"] == COUNT, "{web}");
        ensure!(web["retransmits"] == 0, "{web}");
        link.lose(1)?;
        ask()?;
        let web = figures(node, COUNT + 1)?;
        ensure!(web["retransmits"].as_u64() >= Some(1), "{web}");
        let text = agent.verb(["latency", "web"])?;
        for part in [
            "6 looks at connections without requests",
            "round trip",
            "retransmits: 1",
        ] {
            ensure!(text.contains(part), "{text}");
        }
        agent.terminate(Duration::from_secs(20))
    });
}
