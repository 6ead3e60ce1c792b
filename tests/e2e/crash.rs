//! `kill -9` of the agent under load: every pod gets what it chose, at once, and the next start takes over.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_common::Counter;
use mesh_tests::{Agent, Node, Pod, Process, Scenario, say};
use serde_json::Value;

use crate::peers::{CLIENT, SERVER, at, behaviours};

const BOUND: Duration = Duration::from_secs(30);
const PORT: u16 = 7001;

struct Stage {
    client: Pod,
    agent: Agent,
    _server: (Pod, Process),
}

impl Stage {
    fn new(node: &Node, on_agent_down: &str) -> Result<Self> {
        let pod = node.pod("server", SERVER, None)?;
        let process = behaviours(&pod, &[&format!("{PORT}=once"), "7002=trickle,30"])?;
        let client = node.pod("client", CLIENT, None)?;
        let agent = node.agent(&node.config().pod_with(&client, &[on_agent_down]))?;
        Ok(Self {
            client,
            agent,
            _server: (pod, process),
        })
    }

    /// Kills the agent while two clients connect without pause; what a third client saw.
    fn killed_under_load(&mut self) -> Result<Value> {
        let target = at(SERVER, PORT);
        let load = ["0", "0"]
            .map(|pid| self.client.spawn_python("crash_client.py", [&*target, pid]))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let pid = self.agent.pid().to_string();
        let outcome = self
            .client
            .python("crash_client.py", [&*target, &pid])?
            .json()?;
        self.agent.kill9()?;
        for process in load {
            process.finish(BOUND)?.success()?;
        }
        say(&format!("{outcome}"));
        Ok(outcome)
    }

    fn taken_over(&mut self) -> Result<()> {
        self.agent.start_again()?;
        let redirected = self.agent.counter("redirected")?;
        let outcome = self
            .client
            .python("connecting.py", ["plain", &at(SERVER, PORT)])?
            .json()?;
        ensure!(
            outcome["server"] == "server" && outcome["peer"] == at(SERVER, PORT),
            "{outcome}"
        );
        ensure!(
            self.agent.counter("redirected")? == redirected + 1,
            "not captured again: {}",
            self.agent.status()?
        );
        self.agent.wait_idle()
    }
}

/// How many attempts of `phase` went as `how`.
fn count(outcome: &Value, phase: &str, how: &str) -> u64 {
    outcome[phase][how].as_u64().unwrap_or_default()
}

fn total(outcome: &Value, phase: &str) -> u64 {
    outcome[phase]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, count)| count.as_u64())
        .sum()
}

#[test]
fn with_open_new_connects_go_direct_within_10_ms_and_are_counted() {
    Scenario::default().alone().run(|node| {
        let mut stage = Stage::new(node, "onAgentDown: open")?;
        let outcome = stage.killed_under_load()?;
        ensure!(
            count(&outcome, "before", "captured") == total(&outcome, "before"),
            "{outcome}"
        );
        let settled = total(&outcome, "settled");
        ensure!(settled > 100, "too few connects to tell: {outcome}");
        ensure!(count(&outcome, "settled", "direct") == settled, "{outcome}");
        let first = outcome["first_direct"]
            .as_f64()
            .context("none went direct")?;
        ensure!(
            first < 10.0,
            "the first direct connect came after {first} ms: {outcome}"
        );
        let median = outcome["median"].as_f64().unwrap_or(f64::MAX);
        ensure!(median < 10.0, "{outcome}");
        let counted = stage.agent.kernel_counter(Counter::FailedOpen)?;
        ensure!(
            counted >= settled,
            "only {counted} of {settled} were counted"
        );
        stage.taken_over()?;
        ensure!(
            stage.agent.counter("failedOpen")? >= counted,
            "the takeover forgot: {}",
            stage.agent.status()?
        );
        stage.agent.terminate(BOUND)?;
        node.ensure_no_traces()
    });
}

#[test]
fn with_closed_new_connects_are_refused_and_counted() {
    Scenario::default().alone().run(|node| {
        let mut stage = Stage::new(node, "onAgentDown: closed")?;
        let outcome = stage.killed_under_load()?;
        let settled = total(&outcome, "settled");
        ensure!(settled > 100, "too few connects to tell: {outcome}");
        ensure!(
            count(&outcome, "settled", "ECONNREFUSED") == settled,
            "{outcome}"
        );
        let counted = stage.agent.kernel_counter(Counter::Refused)?;
        ensure!(
            counted >= settled,
            "only {counted} of {settled} were counted"
        );
        // Loopback is nobody's to refuse.
        let _local = behaviours(&stage.client, &["7003=identity"])?;
        let local = stage
            .client
            .python("connecting.py", ["plain", "127.0.0.1:7003"])?
            .json()?;
        ensure!(local["server"] == "client", "{local}");
        stage.taken_over()?;
        stage.agent.terminate(BOUND)?;
        node.ensure_no_traces()
    });
}

#[test]
fn a_bystander_notices_neither_the_crash_nor_the_takeover() {
    Scenario::default().run(|node| {
        let mut stage = Stage::new(node, "onAgentDown: closed")?;
        let bystander = node.pod("bystander", "10.77.0.3", None)?;
        let reach = || -> Result<()> {
            let outcome = bystander
                .python("connecting.py", ["plain", &at(SERVER, PORT)])?
                .json()?;
            ensure!(
                outcome["server"] == "server" && outcome["seen"] == outcome["local"],
                "{outcome}"
            );
            Ok(())
        };
        reach()?;
        stage.agent.kill9()?;
        reach().context("with the agent gone")?;
        stage.taken_over()?;
        reach().context("after the takeover")
    });
}

#[test]
fn a_start_after_a_crash_with_another_configuration_leaves_nothing_of_the_old_one() {
    Scenario::default().run(|node| {
        let mut stage = Stage::new(node, "onAgentDown: closed")?;
        let other = node.pod("other", "10.77.0.3", None)?;
        stage.agent.kill9()?;
        stage
            .agent
            .rewrite_config(&node.config().pod(&other).to_yaml())?;
        stage.agent.start_again()?;
        // Its pod is no longer configured, so nothing may refuse or capture it.
        let outcome = stage
            .client
            .python("connecting.py", ["plain", &at(SERVER, PORT)])?
            .json()?;
        ensure!(
            outcome["server"] == "server" && outcome["seen"] == outcome["local"],
            "{outcome}"
        );
        ensure!(stage.agent.map_dump("pods")?.len() == 1);
        Ok(())
    });
}

#[test]
fn a_transfer_that_the_crash_cuts_off_is_reset_and_never_looks_complete() {
    Scenario::default().run(|node| {
        let mut stage = Stage::new(node, "onAgentDown: open")?;
        let target = at(SERVER, 7002);
        let transfer = stage
            .client
            .spawn_python("ending.py", ["slow-down", &target])?;
        stage.agent.wait_captured()?;
        stage.agent.kill9()?;
        let outcome = transfer.finish(BOUND)?.json()?;
        ensure!(
            outcome["done"] == false && outcome["end"] == "ECONNRESET",
            "{outcome}"
        );
        Ok(())
    });
}

#[test]
fn maps_of_another_shape_are_replaced_by_the_next_start() {
    Scenario::default().run(|node| {
        let mut stage = Stage::new(node, "onAgentDown: open")?;
        for (name, like) in [
            ("events", "type ringbuf entries 4096"),
            ("counters", "type percpu_array key 4 value 8 entries 3"),
            ("origin_count", "type array key 4 value 16 entries 1"),
            (
                "exclusions",
                "type lpm_trie key 12 value 4 entries 9 flags 1",
            ),
        ] {
            stage.agent.kill9()?;
            let pin = stage.agent.pin(name);
            fs::remove_file(&pin)?;
            let line = format!("map create {} {like} name {name}", pin.display());
            let made = Command::new("bpftool").args(line.split(' ')).status()?;
            ensure!(made.success(), "bpftool {line}: {made}");
            stage.taken_over().context(name)?;
        }
        stage.agent.terminate(BOUND)?;
        node.ensure_no_traces()
    });
}
