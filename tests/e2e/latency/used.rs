//! Stages are used, not only shown.

use anyhow::{Context as _, ensure};
use mesh_tests::{scenario, wait_until};

use super::{BOUND, EVERY, Exact, admin, stage};
use crate::peers::{SERVER, at};

#[test]
fn clients_are_told_where_the_time_went_if_they_are_to_be() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let latency = "latency: {sample: 1, mostPerSecond: 1000000, serverTiming: true}";
        let agent = node.agent(&exact.config(node, latency, "{}"))?;
        let answers = exact.ask("/wait?us=20000", 3, &[])?;
        for answer in &answers {
            let timing = answer["timing"].as_str().context("no header")?;
            let server = timing.split("server;dur=").nth(1).context("no server")?;
            let server: f64 = server.split(',').next().unwrap_or_default().parse()?;
            ensure!((19.9..40.0).contains(&server), "{timing}");
            for name in ["queue", "mesh", "network"] {
                ensure!(timing.contains(&format!("{name};dur=")), "{timing}");
            }
        }
        drop(agent);
        let _agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        let answers = exact.ask("/wait", 3, &[])?;
        ensure!(
            answers.iter().all(|it| it["timing"].is_null()),
            "{answers:?}"
        );
        Ok(())
    });
}

#[test]
fn dns_queries_are_measured_too() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let (config, _server) = exact.dns(node)?;
        let _agent = node.agent(&config.after(EVERY))?;
        let server = format!("@{SERVER}");
        for name in ["n1.test", "slow2.test", "slow3.test"] {
            let dig = ["dig", "+short", "+tries=1", &server, name];
            let text = exact.client.run(dig)?.success()?;
            ensure!(text.starts_with("7."), "{text}");
        }
        let mut traces = Vec::new();
        wait_until(BOUND, "the traces", || {
            let all = admin(node, "/traces?destination=dns")?;
            traces = all.as_array().context("no list")?.clone();
            Ok(traces.len() == 3)
        })?;
        for (trace, (name, took)) in traces.iter().zip([
            ("slow3.test", 30_000.0),
            ("slow2.test", 30_000.0),
            ("n1.test", 0.0),
        ]) {
            ensure!(
                trace["path"] == name && trace["endpoint"] == at(SERVER, 53),
                "{trace}"
            );
            let server = stage(trace, "server")?;
            ensure!(
                (took..took + 25_000.0).contains(&server),
                "{server}: {trace}"
            );
            let sent = trace["points"].as_array().context("no points")?.iter();
            let sent = sent.filter(|it| it["what"] == "request: sent by the device");
            ensure!(sent.map(|it| &it["source"]).eq(["software"]), "{trace}");
        }
        let latency = admin(node, "/latency")?;
        ensure!(latency["stamps"]["unmatched"] == 0, "{latency}");
        Ok(())
    });
}
