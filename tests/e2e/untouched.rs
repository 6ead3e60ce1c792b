//! What is not captured is not touched: loopback, exclusions, and pods that are not enrolled.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Agent, Pod, program, python, scenario};
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, OTHER, OTHER6, SERVER, SERVER6, at, behaviours};

const IDENTITY: &str = "7001=identity";

fn plain(pod: &Pod, target: &str) -> Result<Value> {
    pod.python("connecting.py", ["plain", target])?.json()
}

fn ensure_counters(agent: &Agent, expected: &[(&str, u64)]) -> Result<()> {
    let status = agent.status()?;
    for (name, count) in expected {
        ensure!(
            status["counters"][name] == *count,
            "{name} is not {count}: {status}"
        );
    }
    Ok(())
}

#[test]
fn loopback_is_left_alone_and_the_pods_own_address_still_works() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let _server = behaviours(&client, &[IDENTITY])?;
        let agent = node.agent(&node.config().pod(&client))?;
        for target in ["127.0.0.1:7001", "127.0.0.9:7001", "[::1]:7001"] {
            let outcome = plain(&client, target)?;
            ensure!(
                outcome["server"] == "client" && outcome["peer"] == target,
                "{outcome}"
            );
        }
        let mapped = client
            .python("connecting.py", ["mapped", "127.0.0.1:7001"])?
            .json()?;
        ensure!(
            mapped["server"] == "client" && mapped["peer"] == "127.0.0.1:7001",
            "{mapped}"
        );
        ensure_counters(&agent, &[("redirected", 0)])?;
        for own in [CLIENT, CLIENT6] {
            let outcome = plain(&client, &at(own, 7001))?;
            ensure!(
                outcome["server"] == "client" && outcome["peer"] == at(own, 7001),
                "{outcome}"
            );
        }
        agent.wait_idle()
    });
}

#[test]
fn excluded_ports_go_direct_and_others_do_not() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let server = node.pod("server", SERVER, Some(SERVER6))?;
        let _server = behaviours(&server, &[IDENTITY, "7002=identity", "7003=identity"])?;
        let agent = node.agent(
            &node
                .config()
                .pod_with(&client, &["excludePorts: [7002, 7003]"]),
        )?;
        for host in [SERVER, SERVER6] {
            for port in [7001, 7002, 7003] {
                let outcome = plain(&client, &at(host, port))?;
                ensure!(
                    outcome["server"] == "server" && outcome["peer"] == at(host, port),
                    "{outcome}"
                );
            }
        }
        let mapped = client
            .python("connecting.py", ["mapped", &at(SERVER, 7002)])?
            .json()?;
        ensure!(mapped["server"] == "server", "{mapped}");
        ensure_counters(&agent, &[("redirected", 2), ("excludedPort", 5)])?;
        agent.wait_idle()
    });
}

#[test]
fn excluded_address_ranges_go_direct_and_others_do_not() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let server = node.pod("server", SERVER, Some(SERVER6))?;
        let other = node.pod("other", OTHER, Some(OTHER6))?;
        let _servers = (
            behaviours(&server, &[IDENTITY])?,
            behaviours(&other, &[IDENTITY])?,
        );
        // .10 is the last address of the range, .11 just beyond it.
        let exclude = format!("excludeCidrs: [10.77.0.8/31, 10.77.0.10/32, {OTHER6}/128]");
        let agent = node.agent(&node.config().pod_with(&client, &[&exclude]))?;
        for (host, name) in [
            (SERVER, "server"),
            (OTHER, "other"),
            (SERVER6, "server"),
            (OTHER6, "other"),
        ] {
            let outcome = plain(&client, &at(host, 7001))?;
            ensure!(
                outcome["server"] == name && outcome["peer"] == at(host, 7001),
                "{outcome}"
            );
        }
        let mapped = client
            .python("connecting.py", ["mapped", &at(SERVER, 7001)])?
            .json()?;
        ensure!(mapped["server"] == "server", "{mapped}");
        ensure_counters(&agent, &[("redirected", 2), ("excludedCidr", 3)])?;
        agent.wait_idle()
    });
}

#[test]
fn exclusions_of_one_pod_do_not_apply_to_another() {
    scenario(|node| {
        let (first, second) = (
            node.pod("first", CLIENT, None)?,
            node.pod("second", "10.77.0.3", None)?,
        );
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &[IDENTITY, "7002=identity"])?;
        let config = node
            .config()
            .pod_with(&first, &["excludePorts: [7001]"])
            .pod_with(
                &second,
                &["excludePorts: [7002]", "excludeCidrs: [10.99.0.0/16]"],
            );
        let agent = node.agent(&config)?;
        for pod in [&first, &second] {
            for port in [7001, 7002] {
                ensure!(plain(pod, &at(SERVER, port))?["server"] == "server");
            }
        }
        ensure_counters(&agent, &[("redirected", 2), ("excludedPort", 2)])?;
        agent.wait_idle()
    });
}

#[test]
fn udp_to_other_ports_is_left_alone_where_dns_is_captured() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let server = node.pod("server", SERVER, Some(SERVER6))?;
        let mut echo = server.spawn_python("udp.py", ["serve", "7053"])?;
        echo.wait_stdout("ready", Duration::from_secs(10))?;
        let capture = "capture: {outbound: true, inbound: true, dns: true}";
        let agent = node.agent(&node.config().pod_with(&client, &[capture]))?;
        for host in [SERVER, SERVER6] {
            for way in ["connected", "unconnected"] {
                let outcome = client.python("udp.py", [way, &at(host, 7053)])?.json()?;
                ensure!(
                    outcome["answer"] == "hello" && outcome["from"] == at(host, 7053),
                    "{outcome}"
                );
            }
        }
        ensure_counters(&agent, &[("redirected", 0)])?;
        Ok(())
    });
}

/// Runs a program under strace and gives its network calls, with what differs from run to run
/// (process ids, ephemeral ports) made the same, then what it printed.
fn network_calls(pod: &Pod, number: usize, calls: &str, argv: &[String]) -> Result<String> {
    let trace = pod.scratch(&format!("trace-{number}"));
    let trace_text = trace.to_string_lossy().into_owned();
    let mut command: Vec<&str> = vec!["strace", "-f", "-q", "-e", calls, "-o", &trace_text];
    command.extend(argv.iter().map(String::as_str));
    let finished = pod.run(command)?;
    let text = format!(
        "{}{:?}\n{}{}",
        fs::read_to_string(&trace).context("strace wrote nothing")?,
        finished.status.code(),
        finished.stdout,
        finished.stderr
    );
    Ok(text.lines().map(normalised).collect::<Vec<_>>().join("\n"))
}

/// A line without its process id, with every ephemeral port and every pointer the same.
fn normalised(line: &str) -> String {
    let line = line
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .trim_start();
    // How long a call took is not what it answered.
    let line = line.split(", \"seconds\"").next().unwrap_or_default();
    let line = line.split(" after ").next().unwrap_or_default();
    let (mut out, mut word) = (String::new(), String::new());
    for character in line.chars().chain(['\n']) {
        if character.is_ascii_alphanumeric() {
            word.push(character);
            continue;
        }
        let ephemeral = word
            .parse()
            .is_ok_and(|port: u32| (32_768..61_000).contains(&port));
        out.push_str(match &*word {
            _ if ephemeral => "PORT",
            pointer if pointer.starts_with("0x") => "POINTER",
            other => other,
        });
        word.clear();
        out.push(character);
    }
    out.trim_end().to_owned()
}

/// What the clients of the comparison run.
fn comparison_clients() -> Vec<(&'static str, Vec<String>)> {
    let script = |name: &str, args: &[&str]| -> Vec<String> {
        let mut argv = vec![
            python().to_owned(),
            program(name).to_string_lossy().into_owned(),
        ];
        argv.extend(args.iter().map(|&arg| arg.to_owned()));
        argv
    };
    let curl = |url: &str| ["curl", "-sS", "-m", "10", url].map(str::to_owned).to_vec();
    let all = "trace=network";
    let outcomes = "trace=socket,connect,getpeername,getsockname";
    vec![
        (all, script("connecting.py", &["plain", &at(SERVER, 7001)])),
        (all, script("connecting.py", &["plain", &at(SERVER6, 7001)])),
        (all, script("connecting.py", &["mapped", &at(SERVER, 7001)])),
        (
            all,
            script(
                "connecting.py",
                &["after-failed", &at(SERVER, 9), &at(SERVER, 7001)],
            ),
        ),
        (
            all,
            script(
                "connecting.py",
                &["unspec", &at(SERVER, 7001), &at(SERVER, 7001)],
            ),
        ),
        (
            all,
            script("ending.py", &["refused", &at(SERVER, 9), "read"]),
        ),
        (
            all,
            script("ending.py", &["refused", &at(SERVER6, 9), "read"]),
        ),
        (
            all,
            script("ending.py", &["refused", "198.51.100.1:80", "read"]),
        ),
        (outcomes, curl(&format!("http://{SERVER}:8080/"))),
        (outcomes, curl(&format!("http://[{SERVER6}]:8080/"))),
        (outcomes, curl(&format!("http://{SERVER}:9/"))),
    ]
}

fn all_network_calls(pod: &Pod) -> Result<Vec<String>> {
    let clients = comparison_clients().into_iter().enumerate();
    clients
        .map(|(number, (calls, argv))| network_calls(pod, number, calls, &argv))
        .collect()
}

#[test]
fn a_pod_that_is_not_enrolled_makes_the_same_calls_and_gets_the_same_answers() {
    scenario(|node| {
        let bystander = node.pod("bystander", "10.77.0.3", Some("fd77::3"))?;
        let enrolled = node.pod("client", CLIENT, Some(CLIENT6))?;
        let server = node.pod("server", SERVER, Some(SERVER6))?;
        let _servers = (
            behaviours(&server, &[IDENTITY])?,
            crate::peers::http(&server, 8080)?,
        );
        let off = all_network_calls(&bystander)?;
        ensure!(
            off[0].contains("connect(") && off[5].contains("ECONNREFUSED"),
            "strace saw nothing: {off:?}"
        );
        let again = all_network_calls(&bystander)?;
        ensure_same(&off, &again).context("the comparison itself is not steady")?;
        let agent = node.agent(&node.config().pod(&enrolled))?;
        let on = all_network_calls(&bystander)?;
        ensure_same(&off, &on)?;
        ensure!(
            !node.attached_programs()?.is_empty(),
            "nothing was attached while comparing"
        );
        ensure_counters(&agent, &[("redirected", 0)])
    });
}

fn ensure_same(left: &[String], right: &[String]) -> Result<()> {
    for (left, right) in left.iter().zip(right) {
        let different = left
            .lines()
            .zip(right.lines())
            .find(|(left, right)| left != right);
        ensure!(left == right, "first difference {different:#?}\nin\n{left}");
    }
    Ok(())
}

/// Asks a listener in `pod` about a connection from the same pod.
fn original_dst_answers(pod: &Pod) -> Result<Value> {
    let _proxy = pod
        .spawn_python("original_dst.py", ["15999"])?
        .listening(15_999)?;
    pod.python("connecting.py", ["line", &at(pod.address(), 15_999)])?
        .json()
}

#[test]
fn a_pod_that_is_not_enrolled_gets_the_kernels_own_answer_to_every_socket_option() {
    scenario(|node| {
        let bystander = node.pod("bystander", "10.77.0.3", None)?;
        let enrolled = node.pod("client", CLIENT, None)?;
        let off = original_dst_answers(&bystander)?;
        let _agent = node.agent(&node.config().pod(&enrolled))?;
        let on = original_dst_answers(&bystander)?;
        ensure!(off == on, "off: {off}\non: {on}");
        Ok(())
    });
}
