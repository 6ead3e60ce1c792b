//! A network that becomes slower, and then as fast as before, while connections are in use.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mesh_tests::{Agent, Pod, Process, Scenario, say, wait_until};
use serde_json::json;

use super::{
    BOUND, EVERY, Exact, WEB, traces,
    truth::{COUNT, FAR, difference, line, link, medians},
};
use crate::peers::{SERVER, at};

/// Handshakes are asked for each ten seconds at the most.
const NOTICED: Duration = Duration::from_secs(12);
const ALL: Duration = Duration::from_mins(2);

/// Of each stage, in microseconds.
type Medians = [(&'static str, f64)];

/// Nothing was answered by the agent itself or tried again.
fn ensure_all_answered(agent: &Agent) -> Result<()> {
    let web = agent.json("destinations")?[0].clone();
    let is_good = web["answered"].as_object().is_some_and(|it| {
        let mut others = it.iter().filter(|(class, _)| *class != "2xx");
        others.all(|(_, count)| *count == 0)
    });
    ensure!(
        is_good && web["retries"] == 0 && web["ownAnswers"] == json!({}),
        "{web}"
    );
    Ok(())
}

/// A program of the tests, and what it is told before and after an address.
struct Peer {
    program: &'static str,
    before: &'static [&'static str],
    after: &'static [&'static str],
}

impl Peer {
    fn start(&self, pod: &Pod, address: &str) -> Result<Process> {
        pod.spawn_python(self.program, [self.before, &[address], self.after].concat())
    }
}

/// With a server and a client at the ends of a link that becomes slow and then fast again. `then` it is as before.
fn is_noticed(
    server: Peer,
    client: Peer,
    then: impl Fn(&Process, Process, Duration) -> Result<()> + Send + 'static,
) {
    Scenario::default().alone().bound(ALL).run(move |node| {
        let exact = Exact::new(node)?;
        let mut link = link(&exact, [0, 0])?;
        let far = at(FAR, 8090);
        let mut server = server.start(&exact.server, &far)?;
        server.wait_stdout("ready", BOUND)?;
        let agent = node.agent(&exact.config_at(node, &far, EVERY, "{}"))?;
        let begun = Instant::now();
        let client = client.start(&exact.client, &at(WEB, 80))?;
        let count = COUNT as usize;
        // What is made once is behind these.
        traces(node, 3 * count)?;
        let without = medians(node, count)?;
        for (milliseconds, micros) in [([7, 3], 10_000.0), ([0, 0], 0.0)] {
            let [forth, back] = milliseconds.map(Duration::from_millis);
            link.delay(forth, back)?;
            let since = Instant::now();
            // None of before.
            thread::sleep(Duration::from_secs(2));
            let told = |what: &str, is_so: &dyn Fn(&Medians) -> bool| {
                let mut with = Vec::new();
                let look = || {
                    with = medians(node, count)?;
                    Ok(is_so(&with))
                };
                let told = wait_until(NOTICED, what, look);
                let after = since.elapsed();
                let line = line(&["network"], micros, &without, &with);
                say(&format!("{what} after {after:.1?}: {line}"));
                told
            };
            told("the network's new time", &|with| {
                let network = |figures: &Medians| -> f64 {
                    let mut figures = figures.iter().filter(|(name, _)| *name == "network");
                    figures.next().map_or(f64::NAN, |(_, took)| *took)
                };
                (network(with) - network(&without) - micros).abs() < 1_000.0
            })?;
            // One more look may have to tell it better, if something disturbed the first.
            told("the same server", &|with| {
                difference(&["network"], micros, &without, with).is_ok()
            })?;
        }
        ensure_all_answered(&agent)?;
        then(&server, client, begun.elapsed())
    });
}

#[test]
fn a_network_that_becomes_slower_is_not_the_servers_fault_with_http1() {
    is_noticed(
        Peer {
            program: "exact_server.py",
            before: &[],
            after: &[],
        },
        Peer {
            program: "exact_client.py",
            before: &[],
            after: &["/wait?us=2000", "100000", "every_us=15000"],
        },
        |_, mut client, _| {
            ensure!(client.is_running()?, "{}", client.stderr()?);
            Ok(())
        },
    );
}

#[test]
fn a_network_that_becomes_slower_is_not_the_servers_fault_with_http2() {
    is_noticed(
        Peer {
            program: "exact_streams.py",
            before: &["server"],
            after: &["2000"],
        },
        Peer {
            program: "exact_streams.py",
            before: &["client"],
            after: &["1000"],
        },
        |server, client, took| {
            let seen = client.finish(BOUND)?.json()?;
            ensure!(
                seen["asked"] == seen["answered"] && seen["long"] == true,
                "{seen}"
            );
            // The old one is used as before. The others are without requests: at the beginning, one that was made before
            // it was known what the client speaks; and a few handshakes.
            let said = server.stdout()?;
            let count = |what: &str| said.lines().filter(|line| line.starts_with(what)).count();
            ensure!(count("requests on") == 1, "{said}");
            let handshakes = count("connection") - 2;
            say(&format!("{handshakes} handshakes in {took:.0?}"));
            // Three when nothing is known and when it is another one, else one.
            let most = took.as_secs() as usize / 10 + 2 + 2 * 3;
            ensure!((6..=most).contains(&handshakes), "{said}");
            Ok(())
        },
    );
}

#[test]
fn a_server_that_serves_one_connection_at_a_time_keeps_no_request_waiting() {
    Scenario::default().alone().bound(ALL).run(|node| {
        let exact = Exact::new(node)?;
        let one = at(SERVER, 8091);
        let mut server = exact
            .server
            .spawn_python("exact_server.py", [one.as_str(), "one"])?;
        server.wait_stdout("ready", BOUND)?;
        let agent = node.agent(&exact.config_at(node, &one, EVERY, "{}"))?;
        // Acknowledged with the answer, so that the server or the network may be slow: long enough that it
        // is in doubt again.
        let answers = exact.ask("/wait?us=5000", 600, &["every_us=20000"])?;
        ensure!(answers.len() == 600, "{}", answers.len());
        ensure_all_answered(&agent)
    });
}
