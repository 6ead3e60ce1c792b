//! The kernel measures pods' own sockets, whose connections do not go through the agent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Agent, Config, DelayedLink, LinkEnd, Node, Pod, Process, Signal, scenario, wait_until,
};
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, OTHER, SERVER, SERVER6};

/// Redirected to the agent.
const PROXIED: u16 = 7001;
/// Excluded from capture.
const EXCLUDED: u16 = 7100;
const EXCLUDE: &str = "excludePorts: [7100]";
const PROGRAM: &str = "mesh_pod_socks";
const BOUND: Duration = Duration::from_secs(15);

/// Kernels from 6.15 on say when data was handed to the device and acknowledged.
fn has_stamps() -> Result<bool> {
    Ok(kernel()? >= (6, 15))
}

/// Major and minor version.
fn kernel() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).context("no version")
}

/// Seconds that this machine may add to anything: under emulation everything takes 10 to 20 times as long.
fn slack() -> Result<f64> {
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    Ok(if processors.contains("QEMU") {
        0.02
    } else {
        0.001
    })
}

fn measuring(node: &Node, what: &str) -> Config {
    node.config()
        .after(&format!("latency: {{podSockets: {what}}}"))
}

fn echo(pod: &Pod, port: u16) -> Result<Process> {
    pod.spawn_python("ping_pong.py", ["serve", &port.to_string()])?
        .listening(port)
}

/// Sends and receives `count` times, a millisecond apart.
fn ask(pod: &Pod, address: &str, port: u16, count: u32) -> Result<()> {
    let (port, count) = (port.to_string(), count.to_string());
    pod.python("ping_pong.py", ["ask", address, &port, &count, "1"])?
        .success()
        .map(drop)
}

/// What `latency --pod-sockets` says.
fn measured(agent: &Agent) -> Result<Vec<Value>> {
    let text = agent.verb(["latency", "--pod-sockets", "--output", "json"])?;
    let answer: Value = serde_json::from_str(&text)?;
    let sockets = answer["sockets"].as_array();
    Ok(sockets.with_context(|| text.clone())?.clone())
}

/// The entry of a pod for a destination.
fn find(agent: &Agent, pod: &str, destination: &str) -> Result<Value> {
    let all = measured(agent)?;
    let found = all
        .iter()
        .find(|it| it["pod"] == pod && it["destination"] == destination);
    let found = found.with_context(|| format!("no {pod} to {destination} in {all:#?}"))?;
    Ok(found.clone())
}

fn number(value: &Value, pointer: &str) -> Result<f64> {
    let number = value.pointer(pointer).and_then(Value::as_f64);
    number.with_context(|| format!("no {pointer} in {value:#}"))
}

#[test]
fn sockets_that_pass_the_agent_by_are_measured_and_those_of_the_agent_are_not() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let stranger = node.pod("stranger", OTHER, None)?;
        let _servers = (echo(&server, PROXIED)?, echo(&server, EXCLUDED)?);
        let config = measuring(node, "stamps")
            .pod_with(&client, &[EXCLUDE])
            .pod_with(&server, &["capture: {outbound: false}"]);
        let agent = node.agent(&config)?;
        ask(&client, SERVER, EXCLUDED, 500)?;
        ask(&client, SERVER, PROXIED, 500)?;
        ask(&client, "127.0.0.1", PROXIED, 1).expect_err("nobody listens there");
        ask(&stranger, SERVER, EXCLUDED, 5)?;

        let direct = find(&agent, "client", &format!("{SERVER}:{EXCLUDED}"))?;
        ensure!(
            direct["direction"] == "outbound" && direct["connections"] == 1,
            "{direct:#}"
        );
        ensure!(direct["retransmits"] == 0, "{direct:#}");
        ensure!(number(&direct, "/roundTrip/samples")? >= 20.0, "{direct:#}");
        let round_trip = number(&direct, "/roundTrip/p50")?;
        ensure!((1e-6..slack()?).contains(&round_trip), "{direct:#}");
        // Kernels from 6.10 on give each round-trip time as it was measured.
        ensure!(
            direct["isRoundTripSmoothed"] == (kernel()? < (6, 10)),
            "{direct:#}"
        );
        if has_stamps()? {
            ensure!(number(&direct, "/toDevice/samples")? >= 20.0, "{direct:#}");
            let (to_device, to_acknowledged) = (
                number(&direct, "/toDevice/p50")?,
                number(&direct, "/toAcknowledged/p50")?,
            );
            ensure!(
                (0.0..slack()?).contains(&to_device) && to_device > 0.0,
                "{direct:#}"
            );
            ensure!(
                (0.0..slack()?).contains(&to_acknowledged) && to_acknowledged > 0.0,
                "{direct:#}"
            );
        } else {
            ensure!(direct["toDevice"].is_null(), "{direct:#}");
        }
        // The server's end of each, also of the one that the client's agent made.
        let excluded = find(&agent, "server", &format!("port {EXCLUDED}"))?;
        ensure!(
            excluded["direction"] == "inbound" && excluded["connections"] == 2,
            "{excluded:#}"
        );
        find(&agent, "server", &format!("port {PROXIED}"))?;
        // Neither the app's end of a proxied connection, nor the agent's two, nor the stranger's.
        ensure!(measured(&agent)?.len() == 3, "{:#?}", measured(&agent)?);
        agent.wait_idle()
    });
}

#[test]
fn servers_behind_the_agent_are_not_measured_but_those_that_are_excluded() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let lines = [
            "capture: {outbound: false, inbound: true}",
            "excludeInboundPorts: [7100]",
        ];
        let agent = node.agent(&measuring(node, "rtt").pod_with(&server, &lines))?;
        let _servers = (echo(&server, PROXIED)?, echo(&server, EXCLUDED)?);
        ask(&client, SERVER, PROXIED, 50)?;
        ask(&client, SERVER, EXCLUDED, 50)?;
        ensure!(
            agent.counter("inboundAccepted")? == 1,
            "{}",
            agent.status()?
        );
        let sockets = measured(&agent)?;
        ensure!(
            sockets.len() == 1 && sockets[0]["destination"] == format!("port {EXCLUDED}"),
            "{sockets:#?}"
        );
        Ok(())
    });
}

#[test]
fn a_known_delay_is_what_the_round_trip_says() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let end = |pod, address| LinkEnd {
            pod,
            address,
            delay: Duration::from_millis(5),
        };
        let _link = DelayedLink::between(
            "slow0",
            end(&client, "10.99.0.1"),
            end(&server, "10.99.0.2"),
        )?;
        let _server = echo(&server, EXCLUDED)?;
        let agent = node.agent(&measuring(node, "stamps").pod_with(&client, &[EXCLUDE]))?;
        ask(&client, "10.99.0.2", EXCLUDED, 100)?;
        let slow = find(&agent, "client", &format!("10.99.0.2:{EXCLUDED}"))?;
        let expected = 0.009..0.010 + slack()?;
        ensure!(
            expected.contains(&number(&slow, "/roundTrip/mean")?),
            "{slow:#}"
        );
        // Known to a sixteenth.
        ensure!(
            (0.0094..0.0107 + slack()?).contains(&number(&slow, "/roundTrip/p50")?),
            "{slow:#}"
        );
        if has_stamps()? {
            ensure!(
                expected.contains(&number(&slow, "/toAcknowledged/mean")?),
                "{slow:#}"
            );
            ensure!(number(&slow, "/toDevice/p50")? < slack()?, "{slow:#}");
        }
        Ok(())
    });
}

#[test]
fn what_is_sent_again_is_counted() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let _server = echo(&server, EXCLUDED)?;
        let agent = node.agent(&measuring(node, "rtt").pod_with(&client, &[EXCLUDE]))?;
        let port = EXCLUDED.to_string();
        let asking = client.spawn_python("ping_pong.py", ["ask", SERVER, &port, "30", "50"])?;
        let destination = format!("{SERVER}:{EXCLUDED}");
        wait_until(BOUND, "the connection to be measured", || {
            Ok(find(&agent, "client", &destination).is_ok())
        })?;
        server.ip("link set eth0 down")?;
        wait_until(BOUND, "something to be sent again", || {
            Ok(find(&agent, "client", &destination)?["retransmits"] != 0)
        })?;
        server.ip("link set eth0 up")?;
        asking.finish(BOUND)?.success()?;
        Ok(())
    });
}

#[test]
fn one_address_is_one_entry_whichever_family_the_socket_is_of() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let server = node.pod("server", SERVER, Some(SERVER6))?;
        let _server = echo(&server, EXCLUDED)?;
        let config = measuring(node, "stamps")
            .pod_with(&client, &[EXCLUDE])
            .after("destinations: [{name: reviews, addresses: [10.77.0.10], port: 7100}]");
        let agent = node.agent(&config)?;
        for address in [SERVER, &format!("::ffff:{SERVER}"), SERVER6] {
            ask(&client, address, EXCLUDED, 20)?;
        }
        let by_name = find(&agent, "client", "reviews")?;
        ensure!(
            by_name["connections"] == 2 && by_name["server"] == format!("{SERVER}:{EXCLUDED}"),
            "{by_name:#}"
        );
        let by_address = find(&agent, "client", &format!("[{SERVER6}]:{EXCLUDED}"))?;
        ensure!(by_address["connections"] == 1, "{by_address:#}");
        let table = agent.verb(["latency", "--pod-sockets"])?;
        ensure!(
            table.contains("ROUND TRIP p50") && table.contains("reviews"),
            "{table}"
        );
        let metrics = agent.metrics()?;
        let labels = r#"{pod="client",direction="outbound",destination="reviews""#;
        for series in [
            format!("mesh_agent_pod_socket_connections_total{labels}}} 2"),
            format!("mesh_agent_pod_socket_round_trip_seconds_count{labels}}}"),
            "mesh_agent_pod_socket_round_trip_seconds_bucket{le=\"+Inf\",pod=\"client\"".to_owned(),
        ] {
            ensure!(metrics.contains(&series), "no {series} in {metrics}");
        }
        Ok(())
    });
}

#[test]
fn a_full_map_is_counted_and_harms_no_connection() {
    const ROOM: usize = 2048;
    const SERVERS: usize = ROOM + 100;
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        server.ip("route add local 10.200.0.0/16 dev lo")?;
        client.ip(&format!("route add 10.200.0.0/16 via {SERVER}"))?;
        let _server = echo(&server, EXCLUDED)?;
        let agent = node.agent(&measuring(node, "rtt").pod_with(&client, &[EXCLUDE]))?;
        let (port, count) = (EXCLUDED.to_string(), SERVERS.to_string());
        client
            .python("ping_pong.py", ["visit", "10.200.0.1", &port, &count])?
            .success()?;
        let measured = measured(&agent)?.len();
        ensure!(measured == ROOM, "{measured} of {SERVERS} measured");
        let full = agent.counter("podSocketsFull")?;
        ensure!(full >= (SERVERS - ROOM) as u64, "{full} times full");
        Ok(())
    });
}

#[test]
fn a_pod_that_is_no_longer_enrolled_is_forgotten() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let _server = echo(&server, EXCLUDED)?;
        let with = measuring(node, "rtt").pod_with(&client, &[EXCLUDE]);
        let agent = node.agent(&with)?;
        let port = EXCLUDED.to_string();
        // One that goes on all the while.
        let asking = client.spawn_python("ping_pong.py", ["ask", SERVER, &port, "400", "10"])?;
        wait_until(BOUND, "the connection to be measured", || {
            Ok(!measured(&agent)?.is_empty())
        })?;
        agent.rewrite_config(&measuring(node, "rtt").to_yaml())?;
        wait_until(BOUND, "the pod to go", || {
            Ok(agent.pod_state("client")?.is_none())
        })?;
        agent.rewrite_config(&with.to_yaml())?;
        agent.wait_pod_state("client", "enrolled")?;
        let entry = find(&agent, "client", &format!("{SERVER}:{EXCLUDED}"));
        ensure!(
            entry
                .as_ref()
                .map_or(true, |entry| entry["connections"] == 0),
            "{entry:#?}"
        );
        asking.finish(BOUND)?.success()?;
        Ok(())
    });
}

#[test]
fn nothing_is_attached_unless_it_is_asked_for_and_nothing_stays() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let is_attached = || -> Result<bool> {
            let attached = node.attached_programs()?;
            Ok(attached.iter().any(|program| program.contains(PROGRAM)))
        };
        let agent = node.agent(&node.config().pod(&client))?;
        ensure!(!is_attached()?, "{:?}", node.attached_programs()?);
        ensure!(measured(&agent)?.is_empty(), "something is measured");
        let refused = agent.verb(["latency", "--pod-sockets"]);
        ensure!(
            refused
                .as_ref()
                .is_err_and(|it| it.to_string().contains("podSockets: rtt")),
            "{refused:?}"
        );
        agent.terminate(BOUND)?;
        let mut agent = node.agent(&measuring(node, "rtt").pod(&client))?;
        ensure!(is_attached()?, "{:?}", node.attached_programs()?);
        agent.kill9()?;
        wait_until(BOUND, "the program to go with the agent", || {
            Ok(!is_attached()?)
        })?;
        let redirect = node.attached_programs()?;
        ensure!(
            redirect
                .iter()
                .any(|program| program.contains("mesh_sockops")),
            "{redirect:?}"
        );
        agent.start_again()?;
        ensure!(is_attached()?, "{:?}", node.attached_programs()?);
        agent.signal(Signal::SIGTERM)?;
        agent.finish(BOUND)?;
        node.ensure_no_traces()
    });
}

#[test]
fn kernels_without_stamps_say_so_and_measure_round_trips() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let agent = node.agent(&measuring(node, "stamps").pod(&client))?;
        let sockets = agent.status()?["podSockets"].clone();
        let log = agent.log()?;
        if has_stamps()? {
            ensure!(
                sockets["measured"] == "stamps" && sockets["reason"].is_null(),
                "{sockets}"
            );
            ensure!(!log.contains("podSockets"), "{log}");
        } else {
            let said = "stamps need Linux 6.15 or later";
            ensure!(sockets["measured"] == "rtt", "{sockets}");
            ensure!(
                sockets["reason"]
                    .as_str()
                    .is_some_and(|it| it.contains(said)),
                "{sockets}"
            );
            ensure!(log.matches(said).count() == 1, "{log}");
            ensure!(agent.verb(["status"])?.contains(said), "not in status");
        }
        Ok(())
    });
}
