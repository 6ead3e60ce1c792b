//! Stamps are matched to the right bytes.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Scenario, scenario, wait_until};

use super::{BOUND, EVERY, Exact, admin, point, stage, stamps, traces};

#[test]
fn pipelined_requests_each_have_their_own_stamps() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        exact.ask("/wait?us=3000", 5, &["pipeline=4"])?;
        let traces = traces(node, 20)?;
        let mut written_before = 0.0;
        for (index, trace) in traces.iter().enumerate() {
            ensure!(stage(trace, "server")? >= 2_900.0, "{index}: {trace}");
            let began = trace["began"].as_f64().context("no time")? * 1e6;
            // Those behind the first wait for those before them.
            if index % 4 > 0 {
                let turn = began + stage(trace, "client")?;
                ensure!(
                    (turn - written_before).abs() < 1_000.0,
                    "{index}: {turn} and {written_before}: {trace}"
                );
            }
            written_before = began + point(trace, "answer: written")?;
        }
        let stamps = stamps(node, &agent)?;
        ensure!(
            stamps["unmatched"] == 0 && stamps["measured"] == 20,
            "{stamps}"
        );
        Ok(())
    });
}

#[test]
fn an_answer_before_the_request_has_ended_gives_no_stages_and_is_counted() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let _agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        let body = "x".repeat(3_000_000);
        let file = node.dir().join("body");
        std::fs::write(&file, body)?;
        let data = format!("@{}", file.display());
        let url = format!("http://{}/early", super::WEB);
        exact
            .client
            .run([
                "curl",
                "-sS",
                "--max-time",
                "10",
                "-H",
                "expect:",
                "--limit-rate",
                "20M",
                "--data-binary",
                &data,
                &url,
            ])?
            .success()?;
        wait_until(BOUND, "it is counted", || {
            let latency = admin(node, "/latency")?;
            let web = latency["destinations"].as_array().context("no list")?;
            Ok(web
                .iter()
                .any(|it| it["recent"]["overlapping"] == 1 || it["recent"]["count"] == 1))
        })
    });
}

#[test]
fn one_in_so_many_is_measured_and_a_quiet_destination_once_a_second() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let latency = "latency: {sample: 0.1, mostPerSecond: 1000000}";
        let _agent = node.agent(&exact.config(node, latency, "{}"))?;
        exact.ask("/wait", 3_000, &[])?;
        let measured = || -> Result<u64> {
            let latency = admin(node, "/latency")?;
            latency["stamps"]["measured"].as_u64().context("no count")
        };
        let count = measured()?;
        // Five standard deviations of 3,000 draws.
        ensure!((218..=382).contains(&count), "{count} of 3000");
        Ok(())
    });
}

#[test]
fn every_stamp_of_many_requests_finds_its_write() {
    let count: u64 = std::env::var("MESH_STAMPED")
        .map_or(Ok(60_000), |it| it.parse())
        .unwrap_or(60_000);
    Scenario::default()
        .bound(std::time::Duration::from_secs(60 + count / 2_000))
        .run(|node| {
            let exact = Exact::new(node)?;
            let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
            let quarter = count / 4;
            let requests = quarter.to_string();
            let url = format!("http://{}/wait", super::WEB);
            let load = |connections: &str| -> Result<()> {
                let argv = [
                    "h2load",
                    "--h1",
                    "-n",
                    &requests,
                    "-c",
                    connections,
                    "-t",
                    "1",
                    &url,
                ];
                let said = exact.client.run(argv)?.success()?;
                let all = format!("{requests} succeeded");
                ensure!(said.contains(&all), "{said}");
                Ok(())
            };
            load("16")?;
            let before = agent.resident_bytes()?;
            for _ in 0..3 {
                load("16")?;
            }
            let after = agent.resident_bytes()?;
            let stamps = stamps(node, &agent)?;
            mesh_tests::say(&format!("{stamps}; memory {before} → {after}"));
            ensure!(
                stamps["unmatched"] == 0 && stamps["unfinished"] == 0,
                "{stamps}"
            );
            let measured = stamps["measured"].as_u64().context("no count")?;
            ensure!(measured == quarter * 4, "{measured} of {count}: {stamps}");
            // Scheduled, sent and acknowledged of each request; sent of each answer.
            let matched = stamps["matched"].as_u64().context("no count")?;
            ensure!(matched == measured * 4, "{stamps}");
            let latency = admin(node, "/latency")?;
            let web = latency["destinations"][0]["sinceStart"].clone();
            ensure!(web["count"].as_u64() == Some(measured), "{web}");
            ensure!(
                web["sources"]["software"].as_u64() == Some(measured),
                "{web}"
            );
            ensure!(after < before + (4 << 20), "{before} → {after} bytes");
            Ok(())
        });
}
