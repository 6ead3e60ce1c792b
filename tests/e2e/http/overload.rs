//! Servers in pods are not asked more than they can do, and what matters most goes first.

use std::time::Instant;

use anyhow::{Result, ensure};
use mesh_tests::{Agent, Node, Pod, scenario, wait_until};
use serde_json::Value;

use super::{BOUND, PORT, WEB, Web, asked};
use crate::peers::{SERVER, at};

const CAPTURE: &str = "capture: {inbound: true, inboundProtocol: auto}";

/// An agent for the server's pod, with this overload control.
fn agent(node: &Node, web: &Web, overload: &str) -> Result<Agent> {
    let overload = format!("overload: {overload}");
    node.agent(&node.config().pod_with(&web.server, &[CAPTURE, &overload]))
}

/// The statuses and reasons of so many requests at once, in order.
fn at_once(client: &Pod, arguments: &[&str], path: &str, count: usize) -> Result<Vec<String>> {
    let url = format!("http://{}{path}&number=[1-{count}]", at(SERVER, PORT));
    let most = count.to_string();
    let form = "%{http_code} %header{x-mesh-reason}\\n";
    let mut argv = vec![
        "curl",
        "-sS",
        "-Z",
        "--parallel-immediate",
        "--parallel-max",
        &most,
        "-o",
        "/dev/null",
        "-w",
        form,
        "--max-time",
        "15",
    ];
    argv.extend(arguments);
    argv.push(&url);
    let text = client.run(argv)?.success()?;
    let mut seen: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    seen.sort_unstable();
    Ok(seen)
}

fn counts(seen: &[String]) -> Vec<(&str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for one in seen {
        match counts.last_mut() {
            Some((last, count)) if *last == one => *count += 1,
            _ => counts.push((one, 1)),
        }
    }
    counts
}

#[test]
fn requests_wait_for_their_turn_and_are_refused_when_it_does_not_come() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = agent(
            node,
            &web,
            "{concurrency: 2, queue: {maxWait: 300ms, size: 3}}",
        )?;
        let begun = Instant::now();
        let seen = at_once(&web.client, &[], "/slow?ms=100", 5)?;
        ensure!(counts(&seen) == [("200", 5)], "{seen:?}");
        ensure!(
            begun.elapsed().as_millis() >= 300,
            "two at a time: {:?}",
            begun.elapsed()
        );
        let seen = at_once(&web.client, &[], "/slow?ms=600", 7)?;
        let expected = [("200", 2), ("503 queue_full", 2), ("503 queue_timeout", 3)];
        ensure!(counts(&seen) == expected, "{seen:?}");
        let pods = agent.json("pods")?;
        ensure!(
            pods[0]["overload"]["active"] == 0 && pods[0]["overload"]["most"] == 2,
            "{pods}"
        );
        ensure!(pods[0]["overload"]["waiting"] == 0, "{pods}");
        ensure!(agent.verb(["pods"])?.contains("0 of 2"));
        let destinations = agent.json("destinations")?;
        ensure!(
            destinations[0]["ownAnswers"]["queue_full"] == 2,
            "{destinations}"
        );
        agent.wait_idle()
    });
}

#[test]
fn who_gives_up_leaves_the_queue() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = agent(node, &web, "{concurrency: 1, queue: {maxWait: 20s}}")?;
        let url = format!("http://{}/hang", at(SERVER, PORT));
        let gone = web.client.run(["curl", "-sS", "--max-time", "0.5", &url])?;
        ensure!(gone.success().is_err());
        // Its turn has ended with it.
        let url = format!("http://{}/ok", at(SERVER, PORT));
        ensure!(
            web.client
                .run(["curl", "-sS", "--max-time", "5", &url])?
                .success()?
                == "server"
        );
        let pods = agent.json("pods")?;
        ensure!(pods[0]["overload"]["active"] == 0, "{pods}");
        Ok(())
    });
}

#[test]
fn health_checks_and_what_is_critical_go_first() {
    scenario(|node| {
        let web = Web::new(node)?;
        let overload = "{concurrency: 1, queue: {maxWait: 10s, size: 4}, critical: ['path:/peer']}";
        let agent = agent(node, &web, overload)?;
        let flood = web.client.spawn([
            "curl",
            "-sS",
            "-Z",
            "--parallel-immediate",
            "--parallel-max",
            "6",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %header{x-mesh-reason}\\n",
            &format!("http://{}/slow?ms=400&number=[1-5]", at(SERVER, PORT)),
        ])?;
        wait_until(BOUND, "the queue to be full", || {
            let pods = agent.json("pods")?;
            Ok(pods[0]["overload"]["waiting"] == 4)
        })?;
        let begun = Instant::now();
        let url = format!("http://{}/peer", at(SERVER, PORT));
        let status = "%{http_code}";
        let first = web
            .client
            .run(["curl", "-sS", "-o", "/dev/null", "-w", status, &url])?;
        ensure!(first.success()? == "200");
        ensure!(
            begun.elapsed().as_millis() < 1000,
            "it went first: {:?}",
            begun.elapsed()
        );
        let url = format!("http://{}/healthz", at(SERVER, PORT));
        let probe = web.client.run([
            "curl",
            "-sS",
            "-A",
            "kube-probe/1.34",
            "-o",
            "/dev/null",
            "-w",
            status,
            &url,
        ])?;
        ensure!(probe.success()? == "200");
        drop(flood);
        Ok(())
    });
}

#[test]
fn what_only_observes_lets_all_through_and_says_what_it_would_refuse() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = agent(
            node,
            &web,
            "{mode: observe, concurrency: 1, queue: {maxWait: 50ms, size: 3}}",
        )?;
        for _ in 0..2 {
            let seen = at_once(&web.client, &[], "/slow?ms=100", 8)?;
            ensure!(counts(&seen) == [("200", 8)], "{seen:?}");
        }
        let destinations = agent.json("destinations")?;
        let all = destinations.as_array().into_iter().flatten();
        let would: Vec<&Value> = all.map(|it| &it["wouldRefuse"]).collect();
        let sum = |reason: &str| {
            would
                .iter()
                .filter_map(|it| it[reason].as_u64())
                .sum::<u64>()
        };
        ensure!(sum("queue_full") >= 6, "{destinations}");
        ensure!(sum("queue_timeout") >= 2, "{destinations}");
        Ok(())
    });
}

/// A client's pod and a server's with this overload control, both captured.
fn both(node: &Node, web: &Web, overload: &str) -> Result<Agent> {
    let config = node
        .config()
        .pod(&web.client)
        .pod_with(&web.server, &[CAPTURE, overload])
        .after(&format!(
            "destinations: [{{name: web, addresses: [{WEB}], port: 80, endpoints: [{{address: '{}'}}]}}]",
            at(SERVER, PORT)
        ));
    node.agent(&config)
}

#[test]
fn under_overload_the_important_are_served_and_callers_are_told() {
    scenario(|node| {
        let web = Web::new(node)?;
        let overload = "overload: {concurrency: 4, queue: {maxWait: 100ms}, admission: {}}";
        let agent = both(node, &web, overload)?;
        // Four at a time in 20 ms each are 200 a second; twice as many of each kind come.
        let load = web.client.python(
            "priority_load.py",
            [&*at(WEB, 80), "/slow?ms=20", "10", "high=200", "bulk=300"],
        )?;
        let seen = load.json()?;
        let good = |kind: &str| seen[kind]["200"].as_f64().unwrap_or(0.0);
        let all = |kind: &str| -> f64 {
            let statuses = seen[kind].as_object();
            statuses
                .into_iter()
                .flatten()
                .filter_map(|(_, count)| count.as_f64())
                .sum()
        };
        let share = |kind: &str| good(kind) / all(kind);
        // The level needs a few seconds to be found.
        ensure!(share("high") > 0.5, "{seen}");
        ensure!(share("bulk") < 0.5 * share("high"), "{seen}");
        let destinations = agent.json("destinations")?;
        let text = destinations.to_string();
        ensure!(text.contains("low_priority"), "{text}");
        ensure!(
            destinations[0]["ownAnswers"]["server_overloaded"].as_u64() > Some(10),
            "the caller's agent was not told: {text}"
        );
        Ok(())
    });
}

#[test]
fn callers_are_told_nothing_that_is_only_observed() {
    scenario(|node| {
        let web = Web::new(node)?;
        let overload =
            "overload: {mode: observe, concurrency: 1, queue: {maxWait: 20ms}, admission: {}}";
        let agent = both(node, &web, overload)?;
        let load = web.client.python(
            "priority_load.py",
            [&*at(WEB, 80), "/slow?ms=20", "5", "bulk=150"],
        )?;
        let seen = load.json()?;
        ensure!(seen["bulk"]["200"] == 750, "{seen}");
        let text = agent.json("destinations")?.to_string();
        ensure!(
            text.contains("low_priority") && text.contains("queue_timeout"),
            "{text}"
        );
        ensure!(!text.contains("server_overloaded"), "{text}");
        Ok(())
    });
}

#[test]
fn calls_are_as_important_as_what_they_are_made_for() {
    scenario(|node| {
        let web = Web::new(node)?;
        let mut chain = web
            .other
            .spawn_python("forward.py", [at("0.0.0.0", PORT + 1), at(WEB, 80)])?;
        chain.wait_stdout("ready", BOUND)?;
        let overload = "overload: {concurrency: 4, admission: {}}";
        let config = node
            .config()
            .pod_with(&web.other, &[CAPTURE, overload])
            .after(&format!(
                "destinations: [{{name: web, addresses: [{WEB}], port: 80, endpoints: [{{address: '{}'}}]}}]",
                at(SERVER, PORT)
            ));
        let _agent = node.agent(&config)?;
        let url = format!("http://{}/head", at(web.other.address(), PORT + 1));
        let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ask = |priority: &[&str]| {
            let mut argv = vec!["curl", "-sS", "-H", trace];
            argv.extend(priority);
            argv.push(&url);
            web.client.run(argv)?.success()
        };
        let head = ask(&["-H", "x-mesh-priority: high/3"])?;
        ensure!(head.contains("x-mesh-priority: 8/3"), "{head}");
        Ok(())
    });
}

#[test]
fn a_changed_file_changes_what_may_be_worked_on() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = agent(node, &web, "{concurrency: 1, queue: {size: 0}}")?;
        let seen = at_once(&web.client, &[], "/slow?ms=300", 4)?;
        ensure!(
            counts(&seen) == [("200", 1), ("503 queue_full", 3)],
            "{seen:?}"
        );
        let more = node.config().pod_with(
            &web.server,
            &[CAPTURE, "overload: {concurrency: 4, queue: {size: 0}}"],
        );
        agent.rewrite_config(&more.to_yaml())?;
        wait_until(BOUND, "the new limit", || {
            let seen = at_once(&web.client, &[], "/slow?ms=300", 4)?;
            Ok(counts(&seen) == [("200", 4)])
        })?;
        ensure!(asked(&Web::log(&web.server)?, "/slow") >= 5);
        Ok(())
    });
}
