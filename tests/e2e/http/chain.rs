//! Services that call services: a failure at the end is not multiplied on its way back.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Config, Node, Pod, scenario};
use serde_json::Value;

use super::{BOUND, PORT};
use crate::peers::at;

/// The address of the service in a pod, for the pod before it.
fn service(number: usize) -> String {
    format!("10.96.1.{number}")
}

fn host(number: usize) -> String {
    format!("10.77.0.{}", 20 + number)
}

/// What came of `requests` to a client's first service of three, each of which tries what fails twice
/// again: how often the last one was asked for each, and what the client saw.
fn load_on_the_last(
    node: &Node,
    retries: &str,
    requests: u32,
    traced: &[&str],
) -> Result<(f64, Value)> {
    let pods: Vec<Pod> = (0..4)
        .map(|number| node.pod(&format!("p{number}"), &host(number), None))
        .collect::<Result<_>>()?;
    let mut services = Vec::new();
    for (number, pod) in pods.iter().enumerate().skip(1) {
        let mut arguments = vec!["serve".to_owned(), at(&host(number), PORT)];
        if number < 3 {
            arguments.push(at(&service(number + 1), 80));
        }
        let mut service = pod.spawn_python("chain.py", arguments)?;
        service.wait_stdout("ready", BOUND)?;
        services.push(service);
    }
    let config = pods.iter().fold(node.config(), |config: Config, pod| {
        config.pod_with(pod, &["capture: {inbound: true, inboundProtocol: auto}"])
    });
    let destinations: Vec<String> = (1..4)
        .map(|number| {
            format!(
                "{{name: s{number}, addresses: [{}], port: 80, endpoints: [{{address: '{}'}}], \
                 policy: {{retries: {retries}}}}}",
                service(number),
                at(&host(number), PORT)
            )
        })
        .collect();
    let config = config.after(&format!("destinations: [{}]", destinations.join(", ")));
    let _agent = node.agent(&config)?;
    let (address, count) = (at(&service(1), 80), requests.to_string());
    let mut arguments = vec!["ask", &address, &count, "50"];
    arguments.extend(traced);
    let seen = pods[0].python("chain.py", arguments)?.json()?;
    ensure!(seen["statuses"]["503"] == requests, "{seen}");
    let url = format!("http://{}/count", at(&host(3), PORT));
    let asked = pods[3].run(["curl", "-sS", &url])?.success()?;
    let asked: f64 = asked.parse().context(asked)?;
    Ok((asked / f64::from(requests), seen))
}

#[test]
fn without_budget_and_mark_every_level_multiplies_the_load() {
    scenario(|node| {
        let naive = "{on: ['503'], budget: {ratio: 1, floor: 1000}, backoff: {base: 1ms}}";
        let (load, seen) = load_on_the_last(node, naive, 60, &[])?;
        ensure!((26.9..27.1).contains(&load), "{load}: {seen}");
        Ok(())
    });
}

#[test]
fn with_them_the_last_service_is_asked_hardly_more_often() {
    scenario(|node| {
        let (load, seen) = load_on_the_last(node, "{on: ['503']}", 2_000, &["traced"])?;
        ensure!(load <= 1.2, "{load}: {seen}");
        ensure!(load > 1.0, "nothing was tried again at all: {seen}");
        // Nobody is told to try again what was.
        ensure!(seen["marked"]["-"].is_null(), "{seen}");
        Ok(())
    });
}
