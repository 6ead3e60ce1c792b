//! DNS: the resolvers that people use, through the agent and without it.

mod resolvers;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_tests::{Agent, Node, Pod, Process, Scenario, say, scenario, wait_until};

use crate::peers::{CLIENT, CLIENT6, OTHER, OTHER6, SERVER, SERVER6, at};

const BOUND: Duration = Duration::from_secs(10);

/// What makes a pod's DNS captured.
const CAPTURE: &str = "capture: {dns: true}";

/// A client and two servers.
struct Place {
    client: Pod,
    server: Pod,
    other: Pod,
}

impl Place {
    fn new(node: &Node) -> Result<Self> {
        Ok(Self {
            client: node.pod("client", CLIENT, Some(CLIENT6))?,
            server: node.pod("server", SERVER, Some(SERVER6))?,
            other: node.pod("other", OTHER, Some(OTHER6))?,
        })
    }

    fn agent(&self, node: &Node, lines: &[&str]) -> Result<Agent> {
        let lines = [&[CAPTURE], lines].concat();
        node.agent(&node.config().pod_with(&self.client, &lines))
    }

    /// Runs a program whose resolver is configured with `servers`.
    fn resolving(&self, servers: &[&str], argv: &[&str]) -> Result<(String, Duration)> {
        let file = self.client.scratch("resolv.conf");
        let lines: Vec<String> = servers
            .iter()
            .map(|server| format!("nameserver {server}"))
            .collect();
        std::fs::write(&file, lines.join("\n"))?;
        let script = format!(
            "mount --bind {} /etc/resolv.conf && exec \"$@\"",
            file.display()
        );
        let mut command = vec!["unshare", "--mount", "sh", "-c", &script, "sh"];
        command.extend(argv);
        let started = Instant::now();
        let text = self.client.run(command)?.success()?;
        Ok((text, started.elapsed()))
    }
}

/// dnsmasq, which nobody here wrote, with an answer of every kind.
fn dnsmasq(pod: &Pod, name: &str) -> Result<Process> {
    let long = |letter: &str| letter.repeat(250);
    let text = ["a", "b", "c", "d", "e", "f", "g"].map(long).join(",");
    let server = pod.spawn([
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
        &format!("--host-record=who.test,192.0.2.{name},2001:db8::{name},300"),
        &format!("--address=/wild.test/192.0.2.{name}"),
        "--local=/test/",
        "--auth-ttl=60",
        "--local-ttl=60",
        &format!("--txt-record=big.test,{text}"),
        "--srv-host=_http._tcp.test,who.test,80",
    ])?;
    server.listening(53)
}

/// Python's own bare server; see the script.
fn bare_server(pod: &Pod, address: &str, number: u8, drop: u32) -> Result<Process> {
    let arguments = [at(address, 53), number.to_string(), drop.to_string()];
    let mut server = pod.spawn_python("dns_server.py", arguments)?;
    server.wait_stdout("ready", BOUND)?;
    Ok(server)
}

/// Nothing is left of what was sent.
fn ensure_idle(agent: &Agent) -> Result<()> {
    wait_until(BOUND, "the last entry to leave origin_dst_map", || {
        Ok(agent.map_dump("origin_dst_map")?.is_empty())
    })
}

#[test]
fn what_the_server_truncated_is_asked_for_again_over_tcp() {
    scenario(|node| {
        let place = Place::new(node)?;
        let _server = dnsmasq(&place.server, "10")?;
        let server = format!("@{SERVER}");
        let dig = [
            "dig",
            &server,
            "big.test",
            "TXT",
            "+nocookie",
            "+ignore",
            "+bufsize=4096",
        ];
        let size = |text: &str| {
            let line = text.lines().find(|line| line.contains("MSG SIZE"));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
        };
        let truncated = place.client.run(dig)?.success()?;
        ensure!(
            size(&truncated).is_some_and(|size| size < 200),
            "{truncated}"
        );
        let _agent = place.agent(node, &[])?;
        let whole = place.client.run(dig)?.success()?;
        ensure!(size(&whole).is_some_and(|size| size > 1_700), "{whole}");
        Ok(())
    });
}

#[test]
fn a_hundred_thousand_queries_to_two_servers_get_their_own_answers() {
    let count: u32 = std::env::var("MESH_QUERIES")
        .map_or(Ok(100_000), |count| count.parse())
        .unwrap();
    Scenario::default()
        .bound(Duration::from_mins(5))
        .run(|node| {
            let place = Place::new(node)?;
            let _servers = [
                bare_server(&place.server, SERVER, 1, 0)?,
                bare_server(&place.other, OTHER, 2, 10)?,
                bare_server(&place.server, SERVER6, 1, 0)?,
                bare_server(&place.other, OTHER6, 2, 10)?,
            ];
            let agent = place.agent(node, &[])?;
            let started = Instant::now();
            let clients: Vec<Process> = (0..8)
                .map(|number| {
                    let (first, second) = if number % 4 == 3 {
                        (SERVER6, OTHER6)
                    } else {
                        (SERVER, OTHER)
                    };
                    let arguments = [(count / 8).to_string(), at(first, 53), at(second, 53)];
                    place.client.spawn_python("dns_load.py", arguments)
                })
                .collect::<Result<_>>()?;
            let mut answered = 0;
            for client in clients {
                let outcome = client.finish(Duration::from_mins(4))?.json()?;
                ensure!(
                    outcome["lost"] == 0 && outcome["wrong"].as_array().is_some_and(Vec::is_empty),
                    "{outcome}"
                );
                // Only where a server was kept from the processor for longer than the agent waits.
                let failed = outcome["failed"].as_u64();
                ensure!(failed < Some(u64::from(count / 1_000)), "{outcome}");
                answered += outcome["answered"].as_u64().unwrap_or_default();
            }
            say(&format!("{answered} queries in {:?}", started.elapsed()));
            ensure!(answered == u64::from(count / 8 * 8));
            ensure_idle(&agent)
        });
}

#[test]
fn a_dead_server_is_reported_in_time_for_the_next_one() {
    scenario(|node| {
        let place = Place::new(node)?;
        let _silent = bare_server(&place.server, SERVER, 1, 1)?;
        let _other = dnsmasq(&place.other, "11")?;
        let _agent = place.agent(node, &[])?;
        let argv = ["getent", "ahostsv4", "who.test"];
        let (text, took) = place.resolving(&[SERVER, OTHER], &argv)?;
        ensure!(text.contains("192.0.2.11"), "{text}");
        ensure!(took < Duration::from_millis(4_900), "{took:?}");
        // A server that is not there at all is known at once.
        let (text, took) = place.resolving(&["10.77.0.2", OTHER], &argv)?;
        ensure!(text.contains("192.0.2.11"), "{text}");
        ensure!(took < Duration::from_secs(1), "{took:?}");
        Ok(())
    });
}

#[test]
fn without_the_agent_queries_go_as_the_pod_chose() {
    for (choice, expected) in [("open", true), ("closed", false)] {
        scenario(|node| {
            let place = Place::new(node)?;
            let _server = dnsmasq(&place.server, "10")?;
            let mut agent = place.agent(node, &[&format!("onAgentDown: {choice}")])?;
            let server = format!("@{SERVER}");
            let dig = ["dig", &server, "who.test", "+short", "+tries=1", "+time=3"];
            ensure!(place.client.run(dig)?.success()?.trim() == "192.0.2.10");
            agent.kill9()?;
            let started = Instant::now();
            let asked = place.client.run(dig)?;
            ensure!(started.elapsed() < Duration::from_secs(1), "it waited");
            ensure!(
                asked.stdout.contains("192.0.2.10") == expected,
                "{choice}: {}{}",
                asked.stdout,
                asked.stderr
            );
            // A connected socket of before must not be stuck either, once the agent is back.
            agent.start_again()?;
            ensure!(place.client.run(dig)?.success()?.trim() == "192.0.2.10");
            Ok(())
        });
    }
}

#[test]
fn one_socket_may_talk_to_more_servers_than_are_remembered() {
    scenario(|node| {
        let place = Place::new(node)?;
        let mut addresses = Vec::new();
        let mut servers = Vec::new();
        for number in 1..=12_u8 {
            let address = format!("10.77.0.{}", 100 + number);
            place
                .server
                .ip(&format!("addr add {address}/24 dev eth0\n"))?;
            servers.push(bare_server(&place.server, &address, number, 0)?);
            addresses.push(at(&address, 53));
        }
        let agent = place.agent(node, &[])?;
        let outcome = place.client.python("dns_many.py", &addresses)?.json()?;
        ensure!(outcome["right"] == 36, "{outcome}");
        ensure!(agent.counter("datagramsForgotten")? > 0);
        ensure_idle(&agent)
    });
}

#[test]
fn names_of_the_configuration_are_answered_and_change_with_it() {
    scenario(|node| {
        let place = Place::new(node)?;
        let _server = dnsmasq(&place.server, "10")?;
        let config = |addresses: &str| {
            let hosts = "[reviews.demo, '*.reviews.demo']";
            node.config()
                .pod_with(&place.client, &[CAPTURE])
                .after(&format!(
                    "destinations: [{{name: reviews, hosts: {hosts}, addresses: [{addresses}]}}]"
                ))
        };
        let agent = node.agent(&config("10.96.0.10, 'fd96::10'"))?;
        let asked = |name: &str, kind: &str| -> Result<String> {
            let server = format!("@{SERVER}");
            let mut said = Vec::new();
            for more in ["+notcp", "+tcp"] {
                let dig = ["dig", &server, name, kind, "+short", more];
                said.push(place.client.run(dig)?.success()?.trim().to_owned());
            }
            said.dedup();
            Ok(said.join(" over UDP, over TCP "))
        };
        ensure!(asked("reviews.demo", "A")? == "10.96.0.10");
        ensure!(asked("V2.Reviews.demo", "AAAA")? == "fd96::10");
        ensure!(asked("reviews.demo", "TXT")?.is_empty());
        ensure!(asked("who.test", "A")? == "192.0.2.10");
        let (text, _) = place.resolving(&[SERVER], &["getent", "ahosts", "reviews.demo"])?;
        ensure!(
            text.contains("10.96.0.10") && text.contains("fd96::10"),
            "{text}"
        );
        agent.rewrite_config(&config("10.96.0.11").to_yaml())?;
        wait_until(BOUND, "the new address", || {
            Ok(asked("reviews.demo", "A")? == "10.96.0.11")
        })?;
        let dns = &agent.json("pods")?[0]["dns"];
        ensure!(dns["configured"].as_u64() > Some(7), "{dns}");
        ensure_idle(&agent)
    });
}
