//! Network cards' timestamps: what `check` says of them, and that the agent puts back what it found.
//!
//! These set the cards of the machine, so they run only where those are meant for it, as in the machine of
//! `cargo xtask vm --card`: `MESH_TEST_CARDS` names two interfaces, whose driver stamps every packet that is
//! sent, but of those received only PTP's. What the stamps are is tested in `mesh-agent/tests/card`.

mod elsewhere;
mod late;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Config, Node, Scenario, say};

const BOUND: Duration = Duration::from_secs(20);

/// What a card is set to: flags, transmit, receive.
const OFF: &str = "0 0 0";
const SENT: &str = "0 1 0";
/// Of received packets, those of PTP version 2: what `ptp4l` sets.
const SET_BY_PTP: &str = "0 1 12";

/// Runs a test with the first of the cards, switched off, unless there are none.
fn with_card(test: impl FnOnce(&Node, &str) -> Result<()>) {
    let Some(card) = env::var("MESH_TEST_CARDS")
        .ok()
        .and_then(|cards| Some(cards.split(',').next()?.to_owned()))
    else {
        say("skipped: needs a network card to set; `cargo xtask vm --card` has two");
        return;
    };
    Scenario::default().alone().run(|node| {
        // A test that failed may have pulled it out.
        if !late::is_there(&card) {
            late::put_in(&card)?;
        }
        set(node, &card, "0 0")?;
        test(node, &card)
    });
}

/// What the card is set to.
fn setting(node: &Node, card: &str) -> Result<String> {
    set(node, card, "")
}

/// Sets the card to "TRANSMIT RECEIVE", as another tool would.
fn set(node: &Node, card: &str, wanted: &str) -> Result<String> {
    let arguments = std::iter::once(card).chain(wanted.split_whitespace());
    let script = node.spawn_python("hardware_setting.py", arguments)?;
    Ok(script.finish(BOUND)?.success()?.trim().to_owned())
}

fn config(node: &Node, hardware: &str) -> Config {
    let latency = format!("latency: {{hardware: {hardware}}}");
    node.config().after(&latency)
}

/// Where the agents of this machine write down what cards were set to.
fn records() -> Vec<PathBuf> {
    let files = fs::read_dir("/run/mesh-agent").into_iter().flatten();
    files
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("hardware-stamps"))
        .collect()
}

fn ensure_set(node: &Node, card: &str, expected: &str, when: &str) -> Result<()> {
    let now = setting(node, card)?;
    ensure!(now == expected, "{when}: `{now}`, not `{expected}`");
    Ok(())
}

#[test]
fn check_shows_what_a_card_can_whether_it_is_on_and_its_clock() {
    with_card(|node, card| {
        let checked = node.agent_verb(["check", "--output", "json"])?.json()?;
        let of = |name: &str| {
            let interfaces = checked["interfaces"].as_array().cloned();
            interfaces
                .unwrap_or_default()
                .into_iter()
                .find(|interface| interface["name"] == name)
                .with_context(|| format!("no {name} in {checked}"))
        };
        let shown = of(card)?;
        ensure!(
            shown["software"]["transmit"] == true && shown["software"]["receive"] == true,
            "{shown}"
        );
        ensure!(
            shown["hardware"]["transmit"] == true && shown["hardware"]["receive"] == true,
            "{shown}"
        );
        ensure!(shown["hardwareReceiveAll"] == false, "{shown}");
        ensure!(shown["hardwareSetting"]["transmit"] == 0, "{shown}");
        ensure!(shown["clock"] == 0, "{shown}");
        let loopback = of("lo")?;
        ensure!(loopback["hardware"]["transmit"] == false, "{loopback}");

        set(node, card, "1 0")?;
        let table = node.agent_verb(["check"])?.success()?;
        ensure!(
            table.contains(", on for transmit; clock /dev/ptp0"),
            "{table}"
        );
        Ok(())
    });
}

#[test]
fn auto_switches_a_card_on_while_the_agent_runs() {
    with_card(|node, card| {
        let agent = node.agent(&config(node, "auto"))?;
        ensure_set(node, card, SENT, "while it runs")?;
        ensure!(records().len() == 1, "{:?}", records());
        agent.terminate(BOUND)?;
        ensure_set(node, card, OFF, "after it ended")?;
        ensure!(records().is_empty(), "{:?}", records());
        Ok(())
    });
}

#[test]
fn after_kill_9_the_next_run_still_knows_what_the_card_was_set_to() {
    with_card(|node, card| {
        let mut agent = node.agent(&config(node, "auto"))?;
        agent.kill9()?;
        ensure_set(node, card, SENT, "after kill -9")?;
        agent.start_again()?;
        ensure_set(node, card, SENT, "in the next run")?;
        agent.terminate(BOUND)?;
        ensure_set(node, card, OFF, "after that ended")?;
        ensure!(records().is_empty(), "{:?}", records());
        Ok(())
    });
}

#[test]
fn after_kill_9_a_run_that_wants_no_hardware_sets_the_card_back() {
    with_card(|node, card| {
        let mut agent = node.agent(&config(node, "on"))?;
        ensure_set(node, card, SENT, "while it runs")?;
        agent.kill9()?;
        drop(agent);
        let agent = node.agent(&config(node, "off"))?;
        ensure_set(node, card, OFF, "in the next run")?;
        ensure!(records().is_empty(), "{:?}", records());
        agent.terminate(BOUND)
    });
}

#[test]
fn what_another_tool_has_set_is_used_as_it_is() {
    with_card(|node, card| {
        set(node, card, "1 12")?;
        let agent = node.agent(&config(node, "auto"))?;
        ensure_set(node, card, SET_BY_PTP, "while it runs")?;
        agent.terminate(BOUND)?;
        ensure_set(node, card, SET_BY_PTP, "after it ended")
    });
}

#[test]
fn what_another_tool_sets_meanwhile_stays_when_the_agent_ends() {
    with_card(|node, card| {
        let agent = node.agent(&config(node, "auto"))?;
        set(node, card, "1 12")?;
        agent.terminate(BOUND)?;
        ensure_set(node, card, SET_BY_PTP, "after it ended")
    });
}
