//! Stamps are matched to the right bytes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Scenario, say, scenario, wait_until};
use serde_json::Value;

use super::{BOUND, EVERY, Exact, WEB, admin, point, stage, stamps, traces};
use crate::peers::{SERVER, at, nginx};

const NGINX: u16 = 8083;
/// Where a server of HTTP/2 listens.
const HTTP2: u16 = 7112;

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
        let url = format!("http://{WEB}/early");
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
                .any(|it| it["recent"]["overlapping"] == 1 && it["recent"]["count"] == 0))
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

/// Every request of `argv`'s load is measured, and every stamp matched.
fn every_stamp_is_matched(port: &str, count: u64, argv: &[&str], memory: u64) {
    let bound = Duration::from_secs(60 + count / 1_500);
    Scenario::default().bound(bound).run(|node| {
        let exact = Exact::new(node)?;
        let server = nginx(&exact.server, &exact.server.scratch("nginx"), port)?;
        let _nginx = server.listening(NGINX)?;
        let agent = node.agent(&exact.config_for(node, NGINX, EVERY, "{}"))?;
        let quarter = count / 4;
        let requests = quarter.to_string();
        let url = format!("http://{WEB}/");
        let load = || -> Result<()> {
            let argv = [&["h2load", "-n", &requests, "-t", "1"], argv, &[&url]].concat();
            let said = exact.client.run(argv)?.success()?;
            let all = format!("{requests} succeeded");
            ensure!(said.contains(&all), "{said}");
            Ok(())
        };
        load()?;
        let before = agent.resident_bytes()?;
        for _ in 0..3 {
            load()?;
        }
        let after = agent.resident_bytes()?;
        let stamps = stamps(node, &agent)?;
        say(&format!("{stamps}; memory {before} → {after}"));
        ensure!(
            stamps["unmatched"] == 0 && stamps["unfinished"] == 0,
            "{stamps}"
        );
        let measured = stamps["measured"].as_u64().context("no count")?;
        // A second stamp of the same write: that of a segment that TCP has sent again, as a busy peer was late.
        let again = stamps["again"].as_u64().context("no count")?;
        ensure!(again <= measured / 1_000, "{stamps}");
        ensure!(measured == quarter * 4, "{measured} of {count}: {stamps}");
        let latency = admin(node, "/latency")?;
        let web = latency["destinations"][0]["sinceStart"].clone();
        ensure!(web["count"].as_u64() == Some(measured), "{web}");
        ensure!(
            web["sources"]["software"].as_u64() == Some(measured),
            "{web}"
        );
        ensure!(after < before + memory, "{before} → {after} bytes");
        // When each request left; of some, the other stamps of its way. Streams share segments, and their stamps.
        let matched = stamps["matched"].as_u64().context("no count")?;
        let least = if argv.contains(&"--h1") { measured } else { 1 };
        ensure!((least..=measured * 4).contains(&matched), "{stamps}");
        Ok(())
    });
}

/// How many requests: a million for the figures in the documentation.
fn many(default: u64) -> u64 {
    let asked = std::env::var("MESH_STAMPED").ok();
    asked.and_then(|it| it.parse().ok()).unwrap_or(default)
}

#[test]
fn every_stamp_of_many_requests_finds_its_write() {
    let count = many(20_000);
    every_stamp_is_matched("8083", count, &["--h1", "-c", "16"], 4 << 20);
}

#[test]
fn every_stamp_of_many_streams_finds_its_write() {
    let count = many(20_000);
    every_stamp_is_matched("8083 http2", count, &["-c", "4", "-m", "20"], 4 << 20);
}

#[test]
fn streams_of_one_connection_keep_apart() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let address = at(SERVER, 50051);
        let mut server = exact.server.spawn_python("grpc_server.py", [&address])?;
        server.wait_stdout("ready", BOUND)?;
        let _agent = node.agent(&exact.config_for(node, 50051, EVERY, "{}"))?;
        let script = format!(
            "import grpc\nfrom concurrent.futures import wait\n\
             channel = grpc.insecure_channel('{WEB}:80')\n\
             call = channel.unary_unary('/Test/sleep')\n\
             call(b'1')\n\
             calls = [call.future(str(100 * n).encode()) for n in range(7, 0, -1)]\n\
             print([it.result() for it in calls])"
        );
        let python = mesh_tests::python();
        exact.client.run([python, "-c", &script])?.success()?;
        let traces = traces(node, 8)?;
        let servers: Result<Vec<f64>> = traces.iter().map(|it| stage(it, "server")).collect();
        let mut servers = servers?;
        servers.sort_by(f64::total_cmp);
        say(&format!("servers took {servers:.0?} µs"));
        for (number, took) in servers.iter().enumerate().skip(1) {
            let slept = number as f64 * 100_000.0;
            ensure!((slept..slept + 80_000.0).contains(took), "{number}: {took}");
        }
        for trace in &traces {
            let others = trace["total"].as_f64().context("no total")? - stage(trace, "server")?;
            ensure!(others < 80_000.0, "{trace}");
        }
        Ok(())
    });
}

/// A client of HTTP/2 that stops reading once it has heard that the agent goes away, and a server whose answer comes
/// after that; the agent's socket has `room` for it. Counts of requests: told, and unfinished.
fn left_by_the_agent(room: &str, expected: [u64; 2]) {
    scenario(|node| {
        let exact = Exact::new(node)?;
        exact.client.sysctl("net/ipv4/tcp_wmem", room)?;
        let address = at(SERVER, HTTP2);
        let arguments = ["server", &address, "200000", "1.5"];
        let mut server = exact.server.spawn_python("h2_stall.py", arguments)?;
        server.wait_stdout("ready", BOUND)?;
        let agent = node.agent(&exact.config_for(node, HTTP2, EVERY, "{}"))?;
        let arguments = ["client", &at(WEB, 80), "leave"];
        let mut client = exact.client.spawn_python("h2_stall.py", arguments)?;
        client.wait_stdout("begun", BOUND)?;
        agent.rewrite_config(&node.config().after(EVERY).to_yaml())?;
        client.wait_stdout("heard", BOUND)?;
        let mut seen = Value::Null;
        let counted = wait_until(BOUND, "the requests to be counted", || {
            seen = admin(node, "/latency")?;
            let told = seen["destinations"].as_array().context("no list")?;
            let told = told
                .iter()
                .map(|it| it["sinceStart"]["count"].as_u64().unwrap_or_default());
            let unfinished = seen["stamps"]["unfinished"].as_u64();
            Ok([told.sum(), unfinished.context("no count")?] == expected)
        });
        ensure!(counted.is_ok(), "{seen}");
        client.kill()
    });
}

/// The answer is in the kernel when the connection ends, and has not left.
#[test]
fn an_answer_that_is_written_when_its_connection_ends_is_told() {
    left_by_the_agent("4096 1000000 4000000", [2, 0]);
}

#[test]
fn an_answer_that_is_not_all_written_when_its_connection_ends_is_unfinished() {
    left_by_the_agent("4096 16384 32768", [1, 1]);
}
