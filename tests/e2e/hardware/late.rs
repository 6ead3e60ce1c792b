//! Cards that come and go while the agent runs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Node, Process, Scenario, Signal, agent_binary, wait_until};
use serde_json::Value;

use super::{BOUND, OFF, SENT, config, ensure_set, records, setting, with_card};

/// On the wire of the two cards.
const NEAR: &str = "10.245.0.1";
const FAR: &str = "10.245.0.2";
/// In the machine's own namespace: ties a pod to the first card.
const BRIDGE: &str = "mesh-card-br";
/// A machine that is emulated finds a card and brings up its link slowly.
const SLOW: Duration = Duration::from_mins(1);

fn ip(commands: &str) -> Result<()> {
    for command in commands.lines().map(str::trim).filter(|it| !it.is_empty()) {
        let output = Command::new("ip").args(command.split(' ')).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {command}: {said}");
    }
    Ok(())
}

pub fn is_there(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).exists()
}

fn index_of(interface: &str) -> Result<u64> {
    let path = Path::new("/sys/class/net").join(interface).join("ifindex");
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

/// Numbers of the interfaces on record.
fn on_record() -> Result<Vec<u64>> {
    let files = records();
    ensure!(files.len() == 1, "{files:?}");
    let entries: Vec<Value> = serde_json::from_slice(&fs::read(&files[0])?)?;
    Ok(entries
        .iter()
        .filter_map(|entry| entry["index"].as_u64())
        .collect())
}

/// Pulls the card out of its slot.
fn pull_out(card: &str) -> Result<()> {
    let device = fs::canonicalize(format!("/sys/class/net/{card}/device"))?;
    fs::write(device.join("remove"), "1").context("cannot remove the card")?;
    wait_until(SLOW, "the card to be gone", || Ok(!is_there(card)))
}

/// Puts it back.
pub fn put_in(card: &str) -> Result<()> {
    fs::write("/sys/bus/pci/rescan", "1").context("cannot look for cards")?;
    wait_until(SLOW, "the card to come", || Ok(is_there(card)))
}

/// Requests so far that were handed to the device at a time that a card told.
fn by_card(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| {
        line.starts_with("mesh_agent_stamp_sources_total") && line.contains("source=\"hardware\"")
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[test]
fn a_card_that_comes_later_is_switched_on_and_struck_from_the_record_when_it_goes() {
    with_card(|node, card| {
        let first = index_of(card)?;
        let agent = node.agent(&config(node, "auto"))?;
        ensure_set(node, card, SENT, "at the start")?;
        ensure!(on_record()?.contains(&first), "{:?}", on_record());
        pull_out(card)?;
        wait_until(BOUND, "the record without the card", || {
            Ok(!on_record()?.contains(&first))
        })?;
        put_in(card)?;
        wait_until(SLOW, "the card to be switched on", || {
            Ok(setting(node, card)? == SENT)
        })?;
        let second = index_of(card)?;
        ensure!(second != first, "{second}");
        ensure!(on_record()?.contains(&second), "{:?}", on_record());
        // What somebody sets meanwhile stays, whatever else changes.
        super::set(node, card, "0 0")?;
        ip(&format!("link set {card} up\nlink set {card} down"))?;
        std::thread::sleep(Duration::from_secs(2));
        ensure_set(node, card, OFF, "after somebody has switched it off")?;
        super::set(node, card, "1 0")?;
        agent.terminate(BOUND)?;
        ensure_set(node, card, OFF, "after the agent ended")?;
        ensure!(records().is_empty(), "{:?}", records());
        Ok(())
    });
}

/// A pod's packets leave by the card: the first of all, which comes when the agent and a connection through it
/// are there for long.
#[test]
fn stamps_of_a_card_that_comes_later_are_used() {
    with_card(|node, card| {
        pull_out(card)?;
        let client = node.pod("client", crate::peers::CLIENT, None)?;
        let server = node.pod("server", crate::peers::SERVER, None)?;
        let netns = |pod: &mesh_tests::Pod| pod.netns_path().display().to_string();
        // The other card is the server's.
        let far = std::env::var("MESH_TEST_CARDS")?;
        let (_, far) = far.split_once(',').context("one card")?;
        ip(&format!(
            "link set {far} netns {}\n\
             link add {BRIDGE} type bridge\n\
             link set {BRIDGE} up\n\
             link add mesh-card-pod type veth peer name wire netns {}\n\
             link set mesh-card-pod master {BRIDGE} up",
            netns(&server),
            netns(&client),
        ))?;
        client.ip(&format!("addr add {NEAR}/24 dev wire\nlink set wire up\n"))?;
        server.ip(&format!("addr add {FAR}/24 dev {far}\nlink set {far} up\n"))?;
        let mut answers = server.spawn_python("exact_server.py", [format!("{FAR}:8080")])?;
        answers.wait_stdout("ready", BOUND)?;
        let config = node.config().pod(&client).after(&format!(
            "destinations: [{{name: web, addresses: [10.96.0.10], port: 80, \
             endpoints: [{{address: '{FAR}:8080'}}], policy: {{timeouts: {{request: 30s}}}}}}]\n\
             latency: {{hardware: auto, sample: 1, mostPerSecond: 1000000}}"
        ));
        let agent = node.agent(&config)?;
        ensure!(records().is_empty(), "no card: {:?}", records());
        put_in(card)?;
        ip(&format!("link set {card} master {BRIDGE} up"))?;
        wait_until(SLOW, "the card to be switched on", || {
            Ok(setting(node, card)? == SENT)
        })?;
        let ask = || -> Result<()> {
            let argv = ["10.96.0.10:80", "/wait?us=1000", "5"];
            client.python("exact_client.py", argv)?.success()?;
            Ok(())
        };
        wait_until(SLOW, "requests stamped by the card", || {
            // None arrives before the link is up.
            Ok(ask().is_ok() && by_card(&agent.metrics()?) > 0)
        })
        .with_context(|| agent.metrics().unwrap_or_default())?;
        let traces = agent.verb(["trace", "--destination", "web", "-n", "1"])?;
        mesh_tests::say(&traces);
        ensure!(traces.contains("hardware"), "{traces}");

        pull_out(card)?;
        wait_until(BOUND, "the record without the card", || {
            Ok(on_record()?.is_empty())
        })?;
        put_in(card)?;
        ip(&format!("link set {card} master {BRIDGE} up"))?;
        let before = by_card(&agent.metrics()?);
        wait_until(SLOW, "stamps of the card that came back", || {
            Ok(ask().is_ok() && by_card(&agent.metrics()?) > before)
        })?;
        agent.terminate(BOUND)?;
        ensure_set(node, card, OFF, "after the agent ended")?;
        ensure!(records().is_empty(), "{:?}", records());
        drop(answers);
        ip(&format!(
            "link set {card} nomaster\nlink set {card} down\nlink del {BRIDGE}"
        ))
    });
}

/// A card that goes to a pod and comes back is the agent's to set back again.
#[test]
fn a_card_that_was_in_another_namespace_is_set_back_in_the_end() {
    with_card(|node, card| {
        let agent = node.agent(&config(node, "auto"))?;
        ensure_set(node, card, SENT, "at the start")?;
        let index = index_of(card)?;
        let elsewhere = format!("{}-elsewhere", node.id());
        ip(&format!(
            "netns add {elsewhere}\nlink set {card} netns {elsewhere}"
        ))?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(on_record()?.contains(&index), "{:?}", on_record());
        ip(&format!("-n {elsewhere} link set {card} netns 1"))?;
        wait_until(BOUND, "the card to be back", || Ok(is_there(card)))?;
        ip(&format!("netns del {elsewhere}"))?;
        ensure!(index_of(card)? == index, "another number");
        std::thread::sleep(Duration::from_secs(1));
        agent.terminate(BOUND)?;
        ensure_set(node, card, OFF, "after the agent ended")
    });
}

/// All that is on record, which is nothing on a machine without a card.
fn written() -> Result<Vec<String>> {
    let texts = records().into_iter().map(fs::read_to_string);
    Ok(texts.collect::<std::io::Result<_>>()?)
}

/// Starts the agent so that it tells what it sees.
fn talkative(node: &Node) -> Result<Process> {
    let path = node.dir().join("talkative.yaml");
    fs::write(&path, config(node, "auto").to_yaml())?;
    let (binary, path) = (agent_binary()?, path.display().to_string());
    let binary = binary.display().to_string();
    let argv = [
        "env",
        "MESH_AGENT_LOG=mesh_agent=debug",
        &binary,
        "run",
        "--config",
        &path,
    ];
    node.spawn("agent", argv)
}

/// Anywhere, without a card.
#[test]
fn interfaces_that_are_no_cards_are_seen_to_come_and_go_and_nothing_is_done() {
    Scenario::default().alone().run(|node| {
        let mut agent = talkative(node)?;
        let wait_said = |agent: &Process, text: &str| {
            wait_until(BOUND, text, || {
                Ok(agent.stdout()?.contains(text) || agent.stderr()?.contains(text))
            })
            .with_context(|| agent.stderr().unwrap_or_default())
        };
        wait_said(&agent, "ready: ")?;
        let before = written()?;
        let number = std::process::id();
        let (near, far) = (format!("mt{number}a"), format!("mt{number}b"));
        let mut index = 0;
        for _ in 0..20 {
            ip(&format!("link add {near} type veth peer name {far}"))?;
            index = index_of(&near)?;
            ip(&format!("link set {near} up\nlink del {near}"))?;
        }
        wait_said(&agent, &format!("interface {index} is gone"))?;
        ip(&format!("link add {near} type veth peer name {far}"))?;
        wait_said(&agent, &format!("{near}: software"))?;
        ip(&format!("link del {near}"))?;
        ensure!(agent.is_running()?, "{}", agent.stderr()?);
        ensure!(written()? == before, "{:?}", written());
        agent.signal(Signal::SIGTERM)?;
        agent.finish(BOUND)?.success()?;
        Ok(())
    });
}
