//! Each request is told of: in the access log, and in traces.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Config, Node, Process, scenario, wait_until};
use serde_json::Value;

use super::{BOUND, PORT, Web};
use crate::peers::{SERVER, at};

fn config(web: &Web, node: &Node, agent: &str, policy: &str) -> Config {
    let config = web.config(node, &[&at(SERVER, PORT)], policy);
    config.agent(agent)
}

/// The lines of JSON in `text`.
fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    scenario(|node| {
        let web = Web::new(node)?;
        let path = node.dir().join("access.log");
        let log = format!("accessLog: {}", path.display());
        let _agent = node.agent(&config(&web, node, &log, "{timeouts: {request: 300ms}}"))?;
        let wait = |count: usize| -> Result<Vec<Value>> {
            let mut seen = Vec::new();
            wait_until(BOUND, "the lines", || {
                // Made anew after it was moved away.
                seen = lines(&fs::read_to_string(&path).unwrap_or_default())?;
                Ok(seen.len() >= count)
            })?;
            Ok(seen)
        };
        web.curl(&["-H", "Host: web.demo"], "/ok?secret=1")?;
        web.status(&[], "/slow?ms=3000")?;
        web.raw(&["GET /never HTTP/1.1\\r\\n\\r\\n"])?;
        let cut = web.raw(&["GET /part?bytes=1000 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"])?;
        ensure!(cut.contains(" 200 "), "{cut}");
        let seen = wait(4)?;
        let [good, late, bad, cut] = &seen[..] else {
            anyhow::bail!("{seen:?}");
        };
        ensure!(
            good["pod"] == "client" && good["direction"] == "outbound",
            "{good}"
        );
        ensure!(
            good["destination"] == "web" && good["endpoint"] == at(SERVER, PORT),
            "{good}"
        );
        ensure!(good["method"] == "GET" && good["path"] == "/ok", "{good}");
        ensure!(
            good["host"] == "web.demo" && good["protocol"] == "HTTP/1.1",
            "{good}"
        );
        ensure!(
            good["status"] == 200 && good["bytes"] == 6 && good["whole"] == true,
            "{good}"
        );
        ensure!(good["tries"] == 1 && good["reason"].is_null(), "{good}");
        ensure!(good["durationMs"].as_f64() > Some(0.0), "{good}");
        ensure!(
            late["status"] == 504 && late["reason"] == "request_timeout",
            "{late}"
        );
        ensure!(late["durationMs"].as_f64() > Some(299.0), "{late}");
        ensure!(
            bad["status"] == 400 && bad["reason"] == "malformed_host",
            "{bad}"
        );
        ensure!(cut["whole"] == false && cut["bytes"] == 500, "{cut}");
        // Rotation.
        let moved = node.dir().join("access.log.1");
        fs::rename(&path, &moved)?;
        wait_until(BOUND, "a new file", || {
            web.curl(&[], "/ok")?;
            Ok(path.exists())
        })?;
        ensure!(!wait(1)?.is_empty());
        Ok(())
    });
}

#[test]
fn every_line_is_written_before_the_agent_ends() {
    scenario(|node| {
        let web = Web::new(node)?;
        let path = node.dir().join("access.log");
        let log = format!("accessLog: {}", path.display());
        let agent = node.agent(&config(&web, node, &log, "{}"))?;
        let url = format!("http://{}/ok?n=[1-500]", super::WEB);
        web.client
            .run(["curl", "-sS", "-o", "/dev/null", &url])?
            .success()?;
        agent.terminate(BOUND)?;
        let seen = lines(&fs::read_to_string(&path)?)?.len();
        ensure!(seen == 500, "{seen}");
        Ok(())
    });
}

/// A collector, and its port.
fn collector(node: &Node) -> Result<(Process, u16)> {
    let mut collector = node.spawn_python("otlp_collector.py", ["0"])?;
    collector.wait_stdout("ready", BOUND)?;
    let text = collector.stdout()?;
    let port = text.trim().rsplit(' ').next().unwrap_or_default();
    Ok((collector, port.parse()?))
}

/// The spans that a collector got.
fn spans(collector: &Process) -> Result<Vec<Value>> {
    let text = collector.stdout()?;
    let (_ready, text) = text.split_once('\n').unwrap_or_default();
    lines(text)
}

/// A header that the server got, in lower case.
fn got(head: &str, name: &str) -> Option<String> {
    let lines: Vec<String> = serde_json::from_str(head).ok()?;
    let mut lines = lines.iter().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(it, _)| it.eq_ignore_ascii_case(name))?;
    Some(found.1.to_lowercase())
}

#[test]
fn spans_follow_each_other_from_client_to_server() {
    scenario(|node| {
        let web = Web::new(node)?;
        let (collector, port) = collector(node)?;
        let tracing = |sample: &str| {
            format!("tracing: {{sample: {sample}, otlp: 'http://127.0.0.1:{port}/v1/traces'}}")
        };
        let mut agent = node.agent(&config(&web, node, &tracing("1"), "{}"))?;
        // One that begins here.
        let begun = got(&web.curl(&[], "/head")?, "traceparent").context("no traceparent")?;
        // Those that a caller began.
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let w3c = format!("Traceparent: 00-{trace}-00f067aa0ba902b7-01");
        let passed = got(&web.curl(&["-H", &w3c], "/head")?, "traceparent").context("none")?;
        let b3 = format!("B3: {trace}-00f067aa0ba902b8-1");
        let single = got(&web.curl(&["-H", &b3], "/head")?, "b3").context("none")?;
        let parts = [
            format!("X-B3-TraceId: {trace}"),
            "X-B3-SpanId: 00f067aa0ba902b9".to_owned(),
            "X-B3-Sampled: 1".to_owned(),
        ];
        let parts: Vec<&str> = parts.iter().flat_map(|it| ["-H", it]).collect();
        let multi = got(&web.curl(&parts, "/head")?, "x-b3-spanid").context("none")?;
        // One that is not kept.
        let not = format!("Traceparent: 00-{trace}-00f067aa0ba902b7-00");
        let unkept = got(&web.curl(&["-H", &not], "/head")?, "traceparent");
        ensure!(unkept.as_deref() == Some(&not[13..]), "{unkept:?}");
        web.status(&[], "/status?code=503")?;
        wait_until(BOUND, "the spans", || Ok(spans(&collector)?.len() == 5))?;
        let seen = spans(&collector)?;
        let id = |index: usize| seen[index]["spanId"].as_str().unwrap_or_default();
        let first = format!(
            "00-{}-{}-01",
            seen[0]["traceId"].as_str().unwrap_or_default(),
            id(0)
        );
        ensure!(
            begun == first && seen[0]["parentSpanId"] == "",
            "{begun} {}",
            seen[0]
        );
        ensure!(
            passed == format!("00-{trace}-{}-01", id(1)),
            "{passed} {}",
            seen[1]
        );
        ensure!(
            single == format!("{trace}-{}-1-00f067aa0ba902b8", id(2)),
            "{single}"
        );
        ensure!(multi == id(3), "{multi} {}", seen[3]);
        for (index, parent) in [(1, "7"), (2, "8"), (3, "9")] {
            let span = &seen[index];
            ensure!(span["traceId"] == trace, "{span}");
            ensure!(
                span["parentSpanId"] == format!("00f067aa0ba902b{parent}"),
                "{span}"
            );
        }
        let attributes = &seen[1]["attributes"];
        ensure!(attributes["http.request.method"] == "GET", "{attributes}");
        ensure!(
            attributes["http.response.status_code"] == "200",
            "{attributes}"
        );
        ensure!(attributes["mesh.destination"] == "web", "{attributes}");
        ensure!(
            seen[1]["service"] == "client" && seen[1]["kind"] == 3,
            "{}",
            seen[1]
        );
        ensure!(seen[4]["status"]["code"] == 2 && seen[4]["attributes"]["error.type"] == "503");
        ensure!(
            agent
                .metrics()?
                .contains("mesh_agent_spans_exported_total 5")
        );
        // None is kept, and everybody is told so.
        agent.rewrite_config(&config(&web, node, &tracing("0"), "{}").to_yaml())?;
        agent.kill9()?;
        agent.start_again()?;
        let head = got(&web.curl(&[], "/head")?, "traceparent").unwrap_or_default();
        ensure!(head.ends_with("-00"), "{head}");
        // What is under way is sent before the agent ends.
        web.curl(&["-H", &w3c], "/head")?;
        agent.terminate(BOUND)?;
        ensure!(spans(&collector)?.len() == 6);
        Ok(())
    });
}

#[test]
fn a_collector_that_is_away_costs_no_request() {
    scenario(|node| {
        let web = Web::new(node)?;
        let tracing = "tracing: {sample: 1, otlp: 'http://127.0.0.1:9/v1/traces'}";
        let agent = node.agent(&config(&web, node, tracing, "{}"))?;
        for _ in 0..5 {
            ensure!(web.curl(&[], "/ok")? == "server");
        }
        wait_until(BOUND, "the spans to be dropped", || {
            Ok(agent
                .metrics()?
                .contains("mesh_agent_spans_dropped_total 5"))
        })?;
        ensure!(agent.log()?.matches("spans are dropped").count() == 1);
        Ok(())
    });
}
