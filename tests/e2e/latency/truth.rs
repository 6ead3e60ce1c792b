//! A known delay is where it belongs.

use std::{cell::Cell, time::Duration};

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{DelayedLink, LinkEnd, Node, Scenario, say, wait_until};
use serde_json::Value;

use super::{EVERY, Exact, median, stage, traces, traces_to};
use crate::peers::at;

const STAGES: [&str; 8] = [
    "client", "queue", "mesh", "retries", "connect", "network", "server", "transfer",
];
/// What a delay may be off, in microseconds, or a tenth of it.
const TOLERANCE: f64 = 200.0;
/// Requests of each test; the first of them makes a connection.
pub(super) const COUNT: u32 = 40;
/// Who else uses the machine's processors makes everything late, now and then; a delay in the wrong stage is there
/// each time.
const ATTEMPTS: usize = 3;

/// Measures again if it did not succeed, since something may have disturbed it.
pub(super) fn undisturbed(measure: impl Fn() -> Result<()>) -> Result<()> {
    let mut outcome = measure();
    for _ in 1..ATTEMPTS {
        let Err(error) = outcome else { break };
        say(&format!("again: {error:#}"));
        outcome = measure();
    }
    outcome
}

/// The medians of the stages of the last `count` requests.
pub(super) fn medians(node: &Node, count: usize) -> Result<Vec<(&'static str, f64)>> {
    medians_to(node, "web", count)
}

/// The same of another destination.
pub(super) fn medians_to(
    node: &Node,
    destination: &str,
    count: usize,
) -> Result<Vec<(&'static str, f64)>> {
    let traces = traces_to(node, destination, count)?;
    ensure!(traces.len() == count, "{} of {count}", traces.len());
    STAGES
        .iter()
        .map(|&name| {
            let values: Result<Vec<f64>> = traces.iter().map(|it| stage(it, name)).collect();
            Ok((name, median(values?)))
        })
        .collect()
}

/// A delay of `micros` is in each of `expected`, and the other stages are as without it.
pub(super) fn ensure_in(
    expected: &[&str],
    micros: f64,
    without: &[(&str, f64)],
    with: &[(&str, f64)],
) -> Result<()> {
    let line = line(expected, micros, without, with);
    say(&line);
    difference(expected, micros, without, with).context(line)
}

/// What both are.
pub(super) fn line(
    expected: &[&str],
    micros: f64,
    without: &[(&str, f64)],
    with: &[(&str, f64)],
) -> String {
    let both = without.iter().zip(with);
    let texts: Vec<String> = both
        .map(|((name, without), (_, with))| format!("{name} {without:.0} → {with:.0}"))
        .collect();
    let expected = expected.join(" + ");
    format!("{expected:<9} {micros:>6.0} µs: {}", texts.join(" "))
}

/// The same; nothing is said.
pub(super) fn difference(
    expected: &[&str],
    micros: f64,
    without: &[(&str, f64)],
    with: &[(&str, f64)],
) -> Result<()> {
    for ((name, without), (_, with)) in without.iter().zip(with) {
        let added = with - without;
        let wanted = if expected.contains(name) { micros } else { 0.0 };
        let tolerance = TOLERANCE.max(wanted / 10.0);
        ensure!(
            (added - wanted).abs() <= tolerance,
            "{name}: {added:.0} µs more, wanted {wanted:.0}"
        );
    }
    Ok(())
}

/// Runs what has the delay after what has not, and looks where it is.
fn delayed(
    expected: &str,
    micros: f64,
    plain: impl Fn(&Exact, u32) -> Result<()>,
    slow: impl Fn(&Exact, u32) -> Result<()>,
) {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        undisturbed(|| {
            plain(&exact, COUNT)?;
            let without = medians(node, COUNT as usize)?;
            slow(&exact, COUNT)?;
            let with = medians(node, COUNT as usize)?;
            ensure_in(&[expected], micros, &without, &with)
        })?;
        agent.terminate(super::BOUND)
    });
}

/// The median of what clients or servers said of answers.
pub(super) fn took(answers: &[Value], what: &str) -> Result<f64> {
    let values: Option<Vec<f64>> = answers.iter().map(|it| it[what].as_f64()).collect();
    Ok(median(values.context("no times")?))
}

#[test]
fn a_server_that_takes_5_ms() {
    let ask = |exact: &Exact, target: &str, count| exact.ask(target, count, &[]).map(drop);
    delayed(
        "server",
        5_000.0,
        |exact, count| ask(exact, "/wait", count),
        |exact, count| ask(exact, "/wait?us=5000", count),
    );
}

#[test]
fn an_answer_whose_second_half_comes_5_ms_later() {
    delayed(
        "transfer",
        5_000.0,
        |exact, count| exact.ask("/body?bytes=2000", count, &[]).map(drop),
        |exact, count| exact.ask("/body?bytes=2000&us=5000", count, &[]).map(drop),
    );
}

#[test]
fn a_request_whose_second_half_comes_5_ms_later() {
    delayed(
        "client",
        5_000.0,
        |exact, count| exact.ask("/wait", count, &[]).map(drop),
        |exact, count| {
            let answers = exact.ask("/wait", count, &["upload_us=4930"])?;
            took(&answers, "took").map(drop)
        },
    );
}

#[test]
fn a_client_that_does_not_read_for_200_ms() {
    // More than all buffers hold. What the agent cannot write any more it does not read either.
    let ask =
        |exact: &Exact, options: &[&str]| exact.ask("/body?bytes=30000000", 10, options).map(drop);
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        ask(&exact, &[])?;
        let without = medians(node, 10)?;
        ask(&exact, &["read_us=200000"])?;
        let with = medians(node, 10)?;
        let of = |figures: &[(&str, f64)], wanted: &[&str]| -> f64 {
            let figures = figures.iter().filter(|(name, _)| wanted.contains(name));
            figures.map(|(_, took)| took).sum()
        };
        say(&format!("{without:?}\n{with:?}"));
        let waiting = ["client", "transfer"];
        let added = of(&with, &waiting) - of(&without, &waiting);
        ensure!(added > 100_000.0, "{added} µs more");
        let ours = ["mesh", "queue", "server", "network"];
        let added = of(&with, &ours) - of(&without, &ours);
        ensure!(added < 30_000.0, "{added} µs more");
        agent.terminate(super::BOUND)
    });
}

#[test]
fn an_agent_that_is_stopped_for_20_ms() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        // As seldom as with the stop: caches that have become cold are none of it.
        let seldom = "every_us=30000";
        let stop = format!("stop={}:20000", agent.pid());
        undisturbed(|| {
            exact.ask("/wait", COUNT, &[seldom])?;
            let without = medians(node, COUNT as usize)?;
            exact.ask("/wait", COUNT, &[&stop, seldom])?;
            let with = medians(node, COUNT as usize)?;
            ensure_in(&["queue"], 20_000.0, &without, &with)
        })?;
        agent.terminate(super::BOUND)
    });
}

#[test]
fn a_try_that_fails_after_10_ms_and_another_40_ms_later() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{retries: {attempts: 1}}"))?;
        // As seldom as with the waits: caches that have become cold are none of it.
        let seldom = "every_us=60000";
        undisturbed(|| {
            exact.ask("/wait", COUNT, &[seldom])?;
            let without = medians(node, COUNT as usize)?;
            exact.ask("/again?fail_us=10000&ms=40", COUNT, &[seldom])?;
            wait_until(super::BOUND, "two tries of each", || {
                let traces = traces(node, COUNT as usize)?;
                Ok(traces.iter().all(|it| it["tries"] == 2))
            })?;
            let with = medians(node, COUNT as usize)?;
            ensure_in(&["retries"], 50_000.0, &without, &with)
        })?;
        agent.terminate(super::BOUND)
    });
}

#[test]
fn the_stages_of_each_request_are_its_whole_time_and_what_the_client_saw() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let _agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        let asked = Cell::new(0);
        undisturbed(|| {
            asked.set(asked.get() + COUNT as usize);
            let answers = exact.ask("/wait?us=2000", COUNT, &[])?;
            let traces = traces(node, asked.get())?;
            agree(&traces[asked.get() - COUNT as usize..], &answers)
        })
    });
}

/// What is said of these requests is what their client and server say.
fn agree(traces: &[Value], answers: &[Value]) -> Result<()> {
    let (mut beyond, mut off) = (Vec::new(), Vec::new());
    for (trace, answer) in traces.iter().zip(answers) {
        let sum: Result<f64> = STAGES.iter().map(|name| stage(trace, name)).sum();
        let (sum, total) = (sum?, trace["total"].as_f64().context("no total")?);
        ensure!((sum - total).abs() < 1.0, "{sum} of {total}: {trace}");
        let seen = answer["took"].as_f64().context("no time")?;
        beyond.push(total - seen);
        // Between recv and send the server says itself how long it took.
        let (server, said) = (stage(trace, "server")?, answer["server"].as_f64());
        let said = said.context("no time of the server's")?;
        ensure!(
            server > said - 50.0,
            "the server took {said}, and is said to have taken {server}: {trace}"
        );
        off.push(server - said);
    }
    // The client looks at its clock before the first and after the last of its stamps.
    let beyond = median(beyond);
    ensure!(beyond < TOLERANCE, "{beyond} µs more than the client saw");
    let off = median(off);
    say(&format!(
        "the server stage is {off:.0} µs longer than what the server says"
    ));
    ensure!(off < TOLERANCE, "the server stage is {off} µs too long");
    Ok(())
}

/// The client's and the server's end of a link that delays what goes over it.
pub(super) fn link(exact: &Exact, milliseconds: [u64; 2]) -> Result<DelayedLink> {
    let end = |pod, address, milliseconds| LinkEnd {
        pod,
        address,
        delay: Duration::from_millis(milliseconds),
    };
    let [there, back] = milliseconds;
    DelayedLink::between(
        "slow0",
        end(&exact.client, "10.99.0.1", there),
        end(&exact.server, FAR, back),
    )
}

pub(super) const FAR: &str = "10.99.0.2";

/// The stages of requests for `target` over a link with these delays, to a server that is told this.
fn over_a_link(
    milliseconds: [u64; 2],
    server: &'static [&str],
    target: &str,
) -> Result<Vec<(&'static str, f64)>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    Scenario::default().alone().run(move |node| {
        let exact = Exact::new(node)?;
        let _link = link(&exact, milliseconds)?;
        let address = at(FAR, 8090);
        let mut far = exact
            .server
            .spawn_python("exact_server.py", [&[&*address], server].concat())?;
        far.wait_stdout("ready", super::BOUND)?;
        let _agent = node.agent(&exact.config_at(node, &address, EVERY, "{}"))?;
        // The first ones are told by a single handshake, which may have waited for a processor. As seldom with any delay.
        for _ in 0..2 {
            exact.ask(target, COUNT, &["every_us=25000"])?;
        }
        traces(node, 2 * COUNT as usize)?;
        sender.send(medians(node, COUNT as usize)?)?;
        Ok(())
    });
    Ok(receiver.recv()?)
}

/// A network that takes 10 ms is in the `expected` stages of requests for `target`, to a server that is told this.
fn slow_network(expected: &[&str], server: &'static [&str], target: &str) -> Result<()> {
    undisturbed(|| {
        let of = |milliseconds| over_a_link(milliseconds, server, target);
        let (without, with) = (of([0, 0])?, of([7, 3])?);
        ensure_in(expected, 10_000.0, &without, &with)
    })
}

#[test]
fn a_network_that_takes_10_ms() {
    slow_network(&["network"], &[], "/wait?us=2000").unwrap();
}

/// The handshake of a new connection is one round trip, and the request on it another.
#[test]
fn a_new_connection_over_a_network_that_takes_10_ms() {
    // One connection at a time: starting a thread for each takes the server anything up to 2 ms.
    let (server, target) = (&["one"], "/wait?us=2000&close=1");
    slow_network(&["connect", "network"], server, target).unwrap();
}
