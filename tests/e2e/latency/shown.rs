//! What was measured is shown: by `latency`, and to Prometheus.

use std::{io::Write as _, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Agent, Node, scenario, wait_until};
use serde_json::Value;

use super::{BOUND, EVERY, Exact, WEB, admin};
use crate::peers::{SERVER, at};

/// The metrics as the parser of Prometheus' client understands them.
pub fn families(node: &Node, agent: &Agent) -> Result<Value> {
    let path = node.dir().join("metrics.txt");
    std::fs::write(&path, agent.metrics()?)?;
    let program = mesh_tests::program("openmetrics.py");
    let command = format!(
        "exec {} {} < {}",
        mesh_tests::python(),
        program.display(),
        path.display()
    );
    node.spawn("pods", ["sh", "-c", &command])?
        .finish(BOUND)?
        .json()
}

/// The samples of a family.
fn samples<'a>(families: &'a Value, family: &str) -> Result<&'a Vec<Value>> {
    let samples = families[family]["samples"].as_array();
    samples.with_context(|| format!("no {family}"))
}

pub fn wait_measured(agent: &Agent, count: u64) -> Result<Value> {
    let mut answer = Value::Null;
    wait_until(BOUND, "the requests to be measured", || {
        answer = agent.json("latency")?;
        Ok(answer["destinations"][0]["recent"]["count"].as_u64() >= Some(count))
    })?;
    Ok(answer)
}

#[test]
fn latency_shows_that_the_server_is_slow() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        let empty = agent.verb(["latency"])?;
        ensure!(
            empty.contains("no request has been measured yet"),
            "{empty}"
        );
        let empty = agent.verb(["latency", "web"])?;
        ensure!(
            empty.contains("no request to web has been measured"),
            "{empty}"
        );
        // So slow that other tests on the machine do not matter.
        exact.ask("/wait?us=50000", 40, &[])?;
        wait_measured(&agent, 40)?;
        let text = agent.verb(["latency"])?;
        let slowest = text.lines().find(|line| line.contains("slowest: server"));
        ensure!(
            slowest.is_some_and(|line| line.contains("% of the time at p50")),
            "{text}"
        );
        ensure!(
            text.contains("40 requests measured in the last half to whole minute"),
            "{text}"
        );
        ensure!(
            text.contains("every request, at most 1000000 a second"),
            "{text}"
        );
        let widest = text.lines().map(|line| line.chars().count()).max();
        ensure!(widest <= Some(80) && !text.contains('\u{1b}'), "{text}");
        let bar = text
            .lines()
            .find(|line| line.trim_start().starts_with("p50"));
        let server = bar.map_or(0, |bar| bar.matches('█').count());
        ensure!(server > 48, "{text}");
        // One destination: by pod and server too; and since the start.
        let text = agent.verb(["latency", "web", "--since-start"])?;
        ensure!(text.contains("client → 10."), "{text}");
        ensure!(text.contains("since the agent started"), "{text}");
        let json: Value =
            serde_json::from_str(&agent.verb(["latency", "web", "--output", "json"])?)?;
        ensure!(json["series"][0]["pod"] == "client", "{json}");
        let server = json["series"][0]["sinceStart"]["times"]["server"]["p50"].as_f64();
        ensure!(
            server.is_some_and(|it| (49_000.0..70_000.0).contains(&it)),
            "{json}"
        );
        // A name that is nearly right.
        let socket = node.dir().join("admin.sock").display().to_string();
        let wrong = node.agent_verb(["latency", "wbe", "--admin-socket", &socket])?;
        ensure!(
            !wrong.status.success() && wrong.stderr.contains("near: web"),
            "{wrong:?}"
        );
        Ok(())
    });
}

#[test]
fn without_sampling_latency_says_so() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, "latency: {sample: 0}", "{}"))?;
        exact.ask("/wait?us=0", 3, &[])?;
        let text = agent.verb(["latency"])?;
        ensure!(text.contains("`latency.sample` is 0"), "{text}");
        Ok(())
    });
}

#[test]
fn stages_are_metrics_and_slow_requests_lead_to_their_traces() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let config = exact.config(node, EVERY, "{}");
        let agent = node
            .agent(&config.agent("tracing: {sample: 1, otlp: 'http://127.0.0.1:9/v1/traces'}"))?;
        exact.ask("/wait?us=20000", 20, &[])?;
        wait_measured(&agent, 20)?;
        let families = families(node, &agent)?;
        let of = |family: &str, name: &str, labels: &[(&str, &str)]| -> Result<Value> {
            let samples = samples(&families, family)?.iter();
            let mut fits = samples.filter(|it| {
                it["name"] == name
                    && labels
                        .iter()
                        .all(|(label, value)| it["labels"][label] == *value)
            });
            fits.next()
                .cloned()
                .with_context(|| format!("no {name} {labels:?}"))
        };
        let stage = |stage: &str, le: &str| -> Result<u64> {
            let labels = [
                ("pod", "client"),
                ("destination", "web"),
                ("stage", stage),
                ("le", le),
            ];
            let sample = of(
                "mesh_agent_stage_seconds",
                "mesh_agent_stage_seconds_bucket",
                &labels,
            )?;
            let value = sample["value"].as_f64().context("no number")?;
            Ok(value as u64)
        };
        ensure!(stage("server", "0.01")? == 0 && stage("server", "0.05")? == 20);
        ensure!(stage("mesh", "0.01")? == 20, "the mesh is not slow");
        let whole = (
            "mesh_agent_request_seconds",
            "mesh_agent_request_seconds_bucket",
        );
        let slow = of(whole.0, whole.1, &[("destination", "web"), ("le", "0.025")])?;
        let id = slow["exemplar"]["labels"]["trace_id"]
            .as_str()
            .context("no exemplar")?;
        let traces = super::traces(node, 20)?;
        ensure!(traces.iter().any(|it| it["traceId"] == id), "{slow}");
        let value = slow["exemplar"]["value"].as_f64();
        ensure!(
            value.is_some_and(|it| (0.02..0.025).contains(&it)),
            "{slow}"
        );
        let sum = of(
            "mesh_agent_request_seconds",
            "mesh_agent_request_seconds_sum",
            &[],
        )?;
        ensure!(
            sum["value"]
                .as_f64()
                .is_some_and(|it| (0.4..0.5).contains(&it)),
            "{sum}"
        );
        let matched = of(
            "mesh_agent_stamps",
            "mesh_agent_stamps_total",
            &[("outcome", "matched")],
        )?;
        ensure!(matched["value"].as_f64() >= Some(40.0), "{matched}");
        Ok(())
    });
}

#[test]
fn trace_shows_each_request_stamp_by_stamp() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, "latency: {sample: 0}", "{}"))?;
        let none = agent.verb(["trace", "--destination", "web"])?;
        ensure!(none.contains("no such request was measured"), "{none}");
        // None is measured, but for those that somebody waits for.
        let argv = ["10.96.0.10:80", "/wait?us=5000", "5000", "every_us=20000"];
        let mut load = exact.client.spawn_python("exact_client.py", argv)?;
        let next = agent.verb([
            "trace",
            "--pod",
            "client",
            "--destination",
            "web",
            "--next",
            "7",
        ])?;
        let heads = || {
            next.lines()
                .filter(|line| line.starts_with("GET /wait 200  client → web"))
        };
        ensure!(heads().count() == 7, "{next}");
        ensure!(
            next.contains("answer: first byte came") && next.contains("software"),
            "{next}"
        );
        ensure!(next.contains("server 5."), "{next}");
        let json: Value =
            serde_json::from_str(&agent.verb(["trace", "-n", "3", "--output", "json"])?)?;
        let began: Vec<f64> = json
            .as_array()
            .context("no list")?
            .iter()
            .filter_map(|it| it["began"].as_f64())
            .collect();
        ensure!(began.len() == 3 && began.is_sorted(), "{began:?}");
        load.kill()?;
        // Nothing comes any more.
        let socket = node.dir().join("admin.sock").display().to_string();
        let ask = |arguments: &[&str]| {
            let argv = ["trace", "--admin-socket", &socket];
            node.agent_verb(argv.iter().chain(arguments))
        };
        let waited = ask(&["--next", "5", "--wait", "500ms"])?;
        ensure!(
            !waited.status.success() && waited.stderr.contains("none of the next 5"),
            "{waited:?}"
        );
        let unknown = ask(&["--pod", "clint"])?;
        ensure!(
            !unknown.status.success() && unknown.stderr.contains("near: client"),
            "{unknown:?}"
        );
        Ok(())
    });
}

#[test]
fn the_next_request_is_traced_on_a_connection_that_was_idle() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, "latency: {sample: 0}", "{}"))?;
        let request = |path: &str| format!("GET {path} HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n");
        let (first, second) = (request("/wait?us=1"), request("/wait?us=2"));
        let web = at(WEB, 80);
        let argv = [&web, "--end", "--wait", "3", "--read", &first, &second];
        let mut client = exact.client.spawn_python("http_raw.py", argv)?;
        client.wait_stdout("200 OK", BOUND)?;
        // The connection is idle for longer than it takes until somebody waits.
        let waited = ["trace", "--destination", "web", "--next", "1"];
        let traced = agent.verb(waited)?;
        ensure!(traced.contains("GET /wait 200  client → web"), "{traced}");
        ensure!(traced.contains("request: first byte came"), "{traced}");
        let all = admin(node, "/traces?n=100")?;
        ensure!(all.as_array().is_some_and(|all| all.len() == 1), "{all}");
        Ok(())
    });
}

#[test]
fn the_next_requests_to_one_of_several_destinations_of_a_connection_are_traced() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let streams = at(SERVER, 8090);
        let mut server = exact
            .server
            .spawn_python("exact_streams.py", ["server", &streams, "1000"])?;
        server.wait_stdout("ready", BOUND)?;
        // The connection is to the address of `web`; `other` is known by its host only.
        let both = format!(
            "destinations: [{{name: web, hosts: [web.demo], addresses: [{WEB}], port: 80, \
             endpoints: [{{address: '{streams}'}}]}}, \
             {{name: other, hosts: [other.demo], port: 80, endpoints: [{{address: '{streams}'}}]}}]\n\
             latency: {{sample: 0}}"
        );
        let agent = node.agent(&node.config().pod(&exact.client).after(&both))?;
        let mut client = exact
            .client
            .spawn_python("exact_streams.py", ["ask", &at(WEB, 80)])?;
        let mut lines = client.take_stdin().context("no standard input")?;
        let mut ask = |host: &str, path: &str| -> Result<()> {
            writeln!(lines, "{host} {path}")?;
            client.wait_stdout(&format!("answered {path}\n"), BOUND)
        };
        ask("web.demo", "/before")?;
        ask("other.demo", "/before-too")?;
        let next = ["trace", "--destination", "other", "--next", "5"];
        let traced = thread::scope(|scope| {
            let trace = scope.spawn(|| agent.verb(next));
            // Until it waits.
            thread::sleep(Duration::from_secs(1));
            for number in 0..10 {
                ask("web.demo", &format!("/web{number}"))?;
                ask("other.demo", &format!("/other{number}"))?;
            }
            trace.join().ok().context("it panicked")?
        })?;
        let heads = traced.lines().filter(|line| line.starts_with("GET "));
        let paths: Vec<&str> = heads.filter_map(|line| line.split(' ').nth(1)).collect();
        let wanted = ["/other0", "/other1", "/other2", "/other3", "/other4"];
        ensure!(paths == wanted, "{traced}");
        // And no other was.
        let all = admin(node, "/traces?n=100")?;
        ensure!(all.as_array().is_some_and(|all| all.len() == 5), "{all}");
        Ok(())
    });
}
