//! Many connections held while others come and go: ports run out no sooner than without the agent.

use std::env;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_tests::{Node, Pod, Process, Scenario, open_file_limit, say};
use serde_json::Value;

/// Connections that one pod holds where the machine allows it.
const HOLD: u64 = 50_000;

/// Connections opened each second beside them.
const RATE: u64 = 1_000;

const SERVERS: u64 = 4;

/// First of the kernel's ephemeral ports.
const FIRST_PORT: u64 = 32_768;

/// The share of its file limit that the agent keeps for other things than connections.
const RESERVED_SHARE: u64 = 16;

/// How many connections to hold: `MESH_HOLD`, else as many as the agent's file limit allows with two files each.
fn hold() -> Result<u64> {
    let wanted = env::var("MESH_HOLD").map_or(Ok(HOLD), |hold| hold.parse())?;
    let limit = open_file_limit()?;
    let room = (limit - limit / RESERVED_SHARE) / 2;
    // Room for those that come and go.
    Ok(wanted.min(room - RATE / 5))
}

fn churn_seconds() -> Result<u64> {
    Ok(env::var("MESH_CHURN_SECONDS").map_or(Ok(10), |seconds| seconds.parse())?)
}

/// Four servers, each with the target that the client is to be given.
fn servers(node: &Node) -> Result<Vec<(Pod, Process, String)>> {
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        let (name, address) = (
            format!("server{number}"),
            format!("10.77.0.{}", 10 + number),
        );
        let pod = node.pod(&name, &address, None)?;
        let process = pod
            .spawn_python("crowd_server.py", [&name, "9000"])?
            .listening(9000)?;
        servers.push((pod, process, format!("{name}={address}:9000")));
    }
    Ok(servers)
}

/// As many ephemeral ports as one server's share of the connections needs, and a quarter more: if all
/// redirected connections shared one destination, they would run out.
fn limit_ports(pod: &Pod, hold: u64, seconds: u64) -> Result<()> {
    // A closed connection keeps its port for a minute.
    let share = (hold + RATE * seconds.min(60)) / SERVERS;
    let last = (FIRST_PORT + share * 5 / 4).min(60_999);
    pod.sysctl(
        "net/ipv4/ip_local_port_range",
        &format!("{FIRST_PORT} {last}"),
    )
}

fn run(client: &Pod, hold: u64, seconds: u64, targets: &[String]) -> Result<Value> {
    let mut args = vec![hold.to_string(), RATE.to_string(), seconds.to_string()];
    args.extend(targets.iter().cloned());
    client
        .spawn_python("crowd_client.py", args)?
        .finish(Duration::from_secs(seconds + 120))?
        .json()
}

fn ensure_no_failure(outcome: &Value, hold: u64, seconds: u64) -> Result<()> {
    ensure!(
        outcome["errors"]
            .as_object()
            .is_some_and(serde_json::Map::is_empty),
        "{outcome}"
    );
    ensure!(
        outcome["wrong"].as_array().is_some_and(Vec::is_empty),
        "{outcome}"
    );
    ensure!(outcome["held"] == hold && outcome["lost"] == 0, "{outcome}");
    // A slow machine may fall behind its rate; far behind would not be the test that was asked for.
    ensure!(
        outcome["churned"].as_u64() > Some(RATE * seconds * 8 / 10),
        "too slow: {outcome}"
    );
    Ok(())
}

#[test]
fn many_held_connections_and_a_thousand_new_ones_a_second_run_out_of_no_ports() {
    let seconds = churn_seconds().unwrap_or(10);
    Scenario::default()
        .alone()
        .bound(Duration::from_secs(240 + 2 * seconds))
        .run(|node| {
            let (hold, seconds) = (hold()?, churn_seconds()?);
            let servers = servers(node)?;
            let targets: Vec<_> = servers.iter().map(|(.., target)| target.clone()).collect();
            // Two pods, so that what the first leaves in TIME_WAIT takes no port from the second.
            let without = node.pod("without", "10.77.0.2", None)?;
            let client = node.pod("client", "10.77.0.3", None)?;
            for pod in [&without, &client] {
                limit_ports(pod, hold, seconds)?;
            }
            let baseline = run(&without, hold, seconds, &targets)?;
            say(&format!("no agent: {baseline}"));
            ensure_no_failure(&baseline, hold, seconds)?;

            let agent = node.agent(&node.config().pod(&client))?;
            let files = agent.open_files()?;
            let outcome = run(&client, hold, seconds, &targets)?;
            say(&format!("agent:    {outcome}"));
            ensure_no_failure(&outcome, hold, seconds)?;
            let churned = outcome["churned"].as_u64().unwrap_or_default();
            ensure!(
                agent.counter("redirected")? == hold + churned,
                "{}",
                agent.status()?
            );
            agent.wait_idle()?;
            mesh_tests::wait_until(
                Duration::from_secs(10),
                "the agent to close its files",
                || Ok(agent.open_files()? <= files),
            )
        });
}
