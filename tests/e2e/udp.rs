//! Captured datagrams that are no DNS: forwarded flow by flow.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_tests::{Agent, Node, Pod, Process, scenario, wait_until};

use crate::peers::{CLIENT, CLIENT6, SERVER, SERVER6, at};

const BOUND: Duration = Duration::from_secs(10);
const PORT: u16 = 7053;

fn echo(pod: &Pod) -> Result<Process> {
    let mut echo = pod.spawn_python("udp.py", ["serve", &PORT.to_string()])?;
    echo.wait_stdout("ready", BOUND)?;
    Ok(echo)
}

fn pods(node: &Node) -> Result<(Pod, Pod)> {
    Ok((
        node.pod("client", CLIENT, Some(CLIENT6))?,
        node.pod("server", SERVER, Some(SERVER6))?,
    ))
}

fn agent(node: &Node, client: &Pod, idle: &str) -> Result<Agent> {
    let config = node
        .config()
        .agent(&format!("udpIdleTimeout: {idle}"))
        .pod_with(client, &[&format!("capture: {{udpPorts: [{PORT}]}}")]);
    node.agent(&config)
}

fn datagrams(agent: &Agent, field: &str) -> Result<u64> {
    Ok(agent.json("pods")?[0]["datagrams"][field]
        .as_u64()
        .unwrap_or_default())
}

#[test]
fn flows_are_forwarded_whole_in_order_and_end_when_idle() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let _echo = echo(&server)?;
        let agent = agent(node, &client, "3s")?;
        let files = agent.open_files()?;
        let mut sent = 0;
        for host in [SERVER, SERVER6, "::ffff:10.77.0.10"] {
            let arguments = [at(host, PORT), "40".to_owned(), "100".to_owned()];
            let outcome = client.python("udp_flows.py", arguments)?.json()?;
            ensure!(
                outcome["received"] == 4_000
                    && outcome["faults"].as_array().is_some_and(Vec::is_empty),
                "{host}: {outcome}, dropped by the agent: {}",
                datagrams(&agent, "dropped")?
            );
            let peer = at(host.trim_start_matches("::ffff:"), PORT);
            ensure!(outcome["peers"] == serde_json::json!([peer]), "{outcome}");
            sent += 4_000;
        }
        ensure!(datagrams(&agent, "sent")? == sent && datagrams(&agent, "received")? == sent);
        let (flows, dropped) = (datagrams(&agent, "flows")?, datagrams(&agent, "dropped")?);
        ensure!(
            flows == 120 && dropped == 0,
            "{flows} flows, {dropped} dropped"
        );
        wait_until(BOUND, "idle flows to end", || {
            Ok(datagrams(&agent, "open")? == 0 && agent.open_files()? <= files)
        })?;
        agent.wait_idle()
    });
}

#[test]
fn a_flow_that_ended_begins_anew_and_dns_is_left_alone() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let _echo = echo(&server)?;
        let agent = agent(node, &client, "1s")?;
        let mut asking = client.spawn_python("udp_again.py", [at(SERVER, PORT)])?;
        asking.wait_stdout("first", BOUND)?;
        wait_until(BOUND, "the flow to end", || {
            Ok(datagrams(&agent, "open")? == 0)
        })?;
        drop(asking.take_stdin());
        let said = asking.finish(BOUND)?.success()?;
        ensure!(
            said.contains(&format!("second {}", at(SERVER, PORT))),
            "{said}"
        );
        ensure!(datagrams(&agent, "flows")? == 2);
        // Port 53 is not among the ports of this pod.
        let mut dns = server.spawn_python("udp.py", ["serve", "53"])?;
        dns.wait_stdout("ready", BOUND)?;
        let outcome = client
            .python("udp.py", ["unconnected", &at(SERVER, 53)])?
            .json()?;
        ensure!(outcome["from"] == at(SERVER, 53), "{outcome}");
        ensure!(agent.counter("datagramsRedirected")? == 1);
        Ok(())
    });
}
