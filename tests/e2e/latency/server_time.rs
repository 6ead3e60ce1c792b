//! What goes by the server's time does not go by the agent's queue: an agent that is stopped while answers come.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Agent, Node, Process, Scenario, say};
use serde_json::Value;

use super::{BOUND, EVERY, Exact, traces};
use crate::peers::{SERVER, at};

/// Both times, and what was seen of an agent that goes by it.
fn by_both_times<T>(mut seen: impl FnMut(&str) -> Result<T>) -> Result<[T; 2]> {
    Ok([seen("total")?, seen("server")?])
}

/// An agent that goes by `measure`, for the server of `exact`.
fn agent(node: &Node, exact: &Exact, measure: &str, policy: &str) -> Result<Agent> {
    let policy = format!("{{measure: {measure}, {policy}}}");
    node.agent(&exact.config(node, "", &policy))
}

/// Has the agent stopped 25 ms after each request was sent, for 400 ms: it has sent the request on, and the answer, which
/// is to come after 50 ms, waits for it.
fn stop(agent: &Agent) -> String {
    format!("stop_after={}:25000:400000", agent.pid())
}

/// Servers with these names: where they are, and what runs.
fn two_servers(exact: &Exact, names: [&str; 2]) -> Result<([String; 2], Vec<Process>)> {
    let addresses = [at(SERVER, 8081), at(SERVER, 8082)];
    let mut processes = Vec::new();
    for (name, address) in names.iter().zip(&addresses) {
        let mut server = (exact.server).spawn_python("http_server.py", [name, &**address])?;
        server.wait_stdout("ready", BOUND)?;
        processes.push(server);
    }
    Ok((addresses, processes))
}

fn web(agent: &Agent) -> Result<Value> {
    Ok(agent.json("destinations")?[0].clone())
}

fn statuses(answers: &[Value]) -> Vec<&Value> {
    answers.iter().map(|answer| &answer["status"]).collect()
}

#[test]
fn the_agents_own_queue_trips_no_breaker_that_goes_by_it() {
    let policy =
        "breaker: {slowCall: {threshold: 25ms, ratio: 0.5}, window: 60s, minimumCalls: 10}";
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let [total, server] = by_both_times(|measure| {
            let agent = agent(node, &exact, measure, policy)?;
            // The answer comes after 10 ms, while the agent is stopped for 50.
            let stop = format!("stop_after={}:2000:50000", agent.pid());
            let answers = exact.ask("/wait?us=10000", 30, &[&stop, "every_us=80000"])?;
            let breaker = web(&agent)?["breaker"].clone();
            say(&format!("measure: {measure}: {breaker}"));
            agent.terminate(BOUND)?;
            Ok((answers, breaker))
        })?;
        ensure!(total.1["state"] == "open", "{}", total.1);
        let (answers, breaker) = server;
        ensure!(
            breaker["state"] == "closed" && breaker["trips"] == 0,
            "{breaker}"
        );
        // All were asked, and count.
        ensure!(
            breaker["calls"] == 30 && breaker["failed"] == 0,
            "{breaker}"
        );
        let statuses = statuses(&answers);
        ensure!(statuses == [200; 30], "{statuses:?}");
        Ok(())
    });
}

#[test]
fn nor_does_it_make_an_adaptive_time_out_strict_that_goes_by_it() {
    // The last answer is the average. A time-out that is not strict is 3.4 s, after one of 50 ms.
    let policy = "timeouts: {adaptive: {target: 150ms, max: 5s, window: 1}}";
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let [total, server] = by_both_times(|measure| {
            let agent = agent(node, &exact, measure, policy)?;
            let mut answers = exact.ask("/wait?us=50000", 1, &[&stop(&agent)])?;
            answers.extend(exact.ask("/wait?us=600000", 1, &[])?);
            say(&format!("measure: {measure}: {}", web(&agent)?));
            agent.terminate(BOUND)?;
            Ok(answers)
        })?;
        ensure!(statuses(&total) == [200, 504], "{total:?}");
        ensure!(statuses(&server) == [200, 200], "{server:?}");
        Ok(())
    });
}

#[test]
fn nor_is_another_server_asked_by_peak_ewma_that_goes_by_it() {
    /// Only one of the servers takes as long as is asked for.
    const SLOW: &str = "/slow?ms=200&name=slow";
    const AFTER: u32 = 8;
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let (addresses, _servers) = two_servers(&exact, ["fast", "slow"])?;
        let addresses = addresses.each_ref().map(String::as_str);
        let [total, server] = by_both_times(|measure| {
            let policy = format!("{{measure: {measure}, balance: {{algorithm: peak-ewma}}}}");
            let agent = node.agent(&exact.config_of(node, &addresses, "", &policy))?;
            // Until it is known which is slow: from the third on they go to the other one.
            exact.ask(SLOW, 10, &[])?;
            let before = tries(&agent)?;
            ensure!(before[0] >= 8 && before[1] >= 1, "{before:?}");
            exact.ask("/slow?ms=50&name=fast", 1, &[&stop(&agent)])?;
            let stopped = tries(&agent)?;
            ensure!(stopped[0] == before[0] + 1, "{before:?}, {stopped:?}");
            exact.ask(SLOW, AFTER, &[])?;
            let after = tries(&agent)?;
            say(&format!("measure: {measure}: {stopped:?} → {after:?}"));
            agent.terminate(BOUND)?;
            Ok([after[0] - stopped[0], after[1] - stopped[1]])
        })?;
        let after = u64::from(AFTER);
        ensure!(total == [0, after], "{total:?}");
        ensure!(server == [after, 0], "{server:?}");
        Ok(())
    });
}

/// How many requests each server had.
fn tries(agent: &Agent) -> Result<Vec<u64>> {
    let web = web(agent)?;
    let endpoints = web["endpoints"].as_array().context("no endpoints")?;
    let tries: Option<Vec<u64>> = endpoints.iter().map(|it| it["tries"].as_u64()).collect();
    tries.with_context(|| format!("no counts: {web}"))
}

#[test]
fn nor_does_it_put_off_hedges_that_go_by_it() {
    const AFTER: u32 = 5;
    // Nothing is known before there were twenty answers.
    const BEFORE: u32 = 20;
    let policy = "retries: {attempts: 0, hedge: {after: p50}}";
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let [total, server] = by_both_times(|measure| {
            let agent = agent(node, &exact, measure, policy)?;
            exact.ask("/wait?us=50000", BEFORE, &[&stop(&agent)])?;
            let before = web(&agent)?;
            exact.ask("/wait?us=200000", AFTER, &[])?;
            let after = web(&agent)?;
            say(&format!("measure: {measure}: {before} → {after}"));
            agent.terminate(BOUND)?;
            let hedges = |web: &Value| web["hedges"].as_u64().context("no count");
            ensure!(hedges(&before)? == 0, "{before}");
            hedges(&after)
        })?;
        ensure!(total == 0, "{total} after 200 ms of more than 400");
        ensure!(
            server == u64::from(AFTER),
            "{server} after 200 ms of some 50"
        );
        Ok(())
    });
}

/// Two tries are under way when the agent is stopped: what is known of the one that is given up is that it took longer than
/// the other.
#[test]
fn nor_is_who_was_given_up_slower_for_it() {
    const AFTER: usize = 20;
    let policy = "{measure: server, retries: {attempts: 0, hedge: {after: 50ms}}}";
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let (addresses, _servers) = two_servers(&exact, ["a", "b"])?;
        let addresses = addresses.each_ref().map(String::as_str);
        for stops in [false, true] {
            let agent = node.agent(&exact.config_of(node, &addresses, EVERY, policy))?;
            exact.ask("/slow?ms=20", 10, &[])?;
            let stop = format!("stop_after={}:75000:600000", agent.pid());
            let options = if stops { vec![&*stop] } else { vec![] };
            exact.ask("/slow?ms=100", 1, &options)?;
            let hedged = traces(node, 11)?[10].clone();
            ensure!(web(&agent)?["hedges"] == 1, "{hedged}");
            exact.ask("/slow?ms=20", AFTER as u32, &[])?;
            let after = traces(node, 11 + AFTER)?;
            let is_same = |it: &&Value| it["endpoint"] == hedged["endpoint"];
            let same = after[11..].iter().filter(is_same).count();
            say(&format!(
                "stopped: {stops}: {same} of {AFTER} to the one that answered"
            ));
            // The other is known to have taken half as long, by then.
            ensure!(same <= AFTER / 4, "stopped: {stops}: {same}");
            agent.terminate(BOUND)?;
        }
        Ok(())
    });
}

/// The agent is stopped for longer than a try may take, and its answer comes meanwhile.
#[test]
fn an_answer_that_only_the_agent_was_too_late_for_is_in_time() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        for measure in ["total", "server"] {
            let agent = agent(node, &exact, measure, "timeouts: {perTry: 150ms}")?;
            let answers = exact.ask("/wait?us=50000", 10, &[&stop(&agent)])?;
            let statuses = statuses(&answers);
            ensure!(statuses == [200; 10], "measure: {measure}: {statuses:?}");
            // What does not come is late all the same.
            let late = exact.ask("/wait?us=400000", 2, &[])?;
            ensure!(self::statuses(&late) == [504; 2], "{late:?}");
            agent.terminate(BOUND)?;
        }
        Ok(())
    });
}
