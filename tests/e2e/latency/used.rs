//! Stages are used, not only shown.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Scenario, say, scenario};

use super::{EVERY, Exact};

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

/// Stops the agent for a while with each request, as if it had too much to do; how its breaker is then.
fn breaker_of_a_slow_agent(measure: &str) -> Result<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let measure = measure.to_owned();
    Scenario::default().alone().run(move |node| {
        let exact = Exact::new(node)?;
        let policy = format!(
            "{{measure: {measure}, breaker: {{slowCall: {{threshold: 25ms, ratio: 0.5}}, \
             window: 60s, minimumCalls: 10}}}}"
        );
        let agent = node.agent(&exact.config(node, "", &policy))?;
        // The answer comes after 5 ms, while the agent is stopped for 50.
        let stop = format!("stop_after={}:2000:50000", agent.pid());
        let asked = exact.ask("/wait?us=10000", 30, &[&stop, "every_us=80000"]);
        let state = agent.json("destinations")?[0]["breaker"]["state"].clone();
        say(&format!("measure: {measure}: {state}, {:?}", asked.is_ok()));
        sender.send(state.as_str().unwrap_or_default().to_owned())?;
        Ok(())
    });
    Ok(receiver.recv()?)
}

#[test]
fn the_agents_own_queue_trips_no_breaker_that_goes_by_server_time() {
    assert_eq!(breaker_of_a_slow_agent("total").unwrap(), "open");
    assert_eq!(breaker_of_a_slow_agent("server").unwrap(), "closed");
}
