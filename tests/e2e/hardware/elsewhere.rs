//! What does not go by a card, on a machine that has one.

use anyhow::{Context as _, ensure};
use mesh_tests::say;
use serde_json::Value;

use super::{BOUND, SENT, ensure_set, with_card};
use crate::peers::{CLIENT, SERVER, at};

/// So many that no card's stamp comes of for long.
const COUNT: u64 = 300;

/// The card is asked for stamps that never come; the kernel's own are as without it.
#[test]
fn packets_that_go_by_no_card_are_stamped_all_the_same() {
    with_card(|node, card| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let mut answers = server.spawn_python("exact_server.py", [at(SERVER, 8080)])?;
        answers.wait_stdout("ready", BOUND)?;
        let config = node.config().pod(&client).after(&format!(
            "destinations: [{{name: web, addresses: [10.96.0.10], port: 80, \
             endpoints: [{{address: '{SERVER}:8080'}}]}}]\n\
             latency: {{hardware: auto, sample: 1, mostPerSecond: 1000000}}"
        ));
        let agent = node.agent(&config)?;
        ensure_set(node, card, SENT, "at the start")?;
        let argv = ["10.96.0.10:80", "/wait", &COUNT.to_string()];
        client.python("exact_client.py", argv)?.success()?;
        let latency: Value =
            serde_json::from_str(&agent.verb(["latency", "web", "--output", "json"])?)?;
        let web = latency["destinations"][0]["sinceStart"].clone();
        let sources = web["sources"].as_object().context("no sources")?.clone();
        say(&format!("{sources:?}, {}", latency["stamps"]));
        let by_kernel = sources.get("software").and_then(Value::as_u64);
        ensure!(
            sources.len() == 1 && by_kernel == Some(COUNT),
            "{sources:?}, {}",
            latency["stamps"]
        );
        ensure!(latency["stamps"]["unmatched"] == 0, "{latency}");
        agent.terminate(BOUND)
    });
}
