//! Requests that somebody waits for, among others that nobody does.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Agent, scenario};
use serde_json::Value;

use super::{Exact, WEB};
use crate::peers::{SERVER, at};

/// What `trace` tells of the next requests.
fn next(agent: &Agent, arguments: &[&str]) -> Result<Vec<Value>> {
    let argv = [&["trace", "--output", "json"], arguments].concat();
    let told: Value = serde_json::from_str(&agent.verb(argv)?)?;
    Ok(told.as_array().context("no list")?.clone())
}

#[test]
fn requests_of_other_pods_do_not_take_their_place() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let busy = node.pod("busy", "10.77.0.12", None)?;
        let config = exact.config(node, "latency: {sample: 0}", "{}").pod(&busy);
        let agent = node.agent(&config)?;
        let start = |pod: &mesh_tests::Pod, every: &str| {
            let argv = [&at(WEB, 80), "/wait", "100000", every];
            pod.spawn_python("exact_client.py", argv)
        };
        // A hundred for each of the others.
        let _busy = start(&busy, "every_us=3000")?;
        let _client = start(&exact.client, "every_us=300000")?;
        let wanted = ["--pod", "client", "--destination", "web", "--next", "3"];
        let told = next(&agent, &wanted)?;
        ensure!(told.len() == 3, "{told:?}");
        ensure!(told.iter().all(|it| it["pod"] == "client"), "{told:?}");
        Ok(())
    });
}

#[test]
fn queries_are_waited_for_like_requests() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let (config, _server) = exact.dns(node)?;
        let agent = node.agent(&config.after("latency: {sample: 0}"))?;
        // Names of their own: what is known already is not asked for.
        let ask = format!(
            "n=0; while sleep 0.05; do n=$((n + 1)); dig +short +tries=1 @{SERVER} n$n.test; done"
        );
        let _asking = exact.client.spawn(["sh", "-c", &ask])?;
        let told = next(&agent, &["--destination", "dns", "--next", "3"])?;
        ensure!(told.len() == 3, "{told:?}");
        ensure!(told.iter().all(|it| it["destination"] == "dns"), "{told:?}");
        Ok(())
    });
}
