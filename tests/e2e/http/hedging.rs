//! A request that waits for too long is sent to another server as well, within the budget.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_tests::{Agent, scenario, wait_until};
use serde_json::Value;

use super::{BOUND, Web};

/// Much longer than a hedge may take.
const SLOW: &str = "/slow?ms=4000&name=server";
const SOON: Duration = Duration::from_secs(2);

fn policy(hedge: &str) -> String {
    format!("{{balance: {{algorithm: round-robin}}, retries: {{attempts: 0, {hedge}}}}}")
}

fn web(agent: &Agent) -> Result<Value> {
    Ok(agent.json("destinations")?[0].clone())
}

#[test]
fn the_faster_of_two_servers_answers() {
    scenario(|node| {
        let web_ = Web::new(node)?;
        let agent = web_.agent_for_both(node, &policy("hedge: {after: 100ms}"))?;
        for _ in 0..6 {
            let begun = Instant::now();
            let name = web_.curl(&[], SLOW)?;
            ensure!(name == "other" && begun.elapsed() < SOON, "{name}");
        }
        // The same with a body that can be repeated.
        let begun = Instant::now();
        let put = ["-X", "PUT", "-d", "a=b"];
        ensure!(web_.curl(&put, SLOW)? == "other" && web_.curl(&put, SLOW)? == "other");
        ensure!(begun.elapsed() < 2 * SOON);
        let seen = web(&agent)?;
        let hedges = seen["hedges"].as_u64().unwrap_or(0);
        ensure!(
            (3..=8).contains(&hedges) && seen["hedgesWon"] == hedges,
            "{seen}"
        );
        // What lost was cancelled.
        wait_until(SOON, "nothing to be under way", || {
            let seen = web(&agent)?;
            let endpoints = seen["endpoints"].as_array().into_iter().flatten();
            Ok(endpoints.map(|it| &it["active"]).all(|it| *it == 0))
        })
    });
}

#[test]
fn what_may_not_be_repeated_waits() {
    scenario(|node| {
        let web_ = Web::new(node)?;
        let agent = web_.agent_for_both(node, &policy("hedge: {after: 50ms}"))?;
        for _ in 0..4 {
            web_.curl(&["-d", "a=b"], "/slow?ms=300")?;
        }
        ensure!(web(&agent)?["hedges"] == 0);
        Ok(())
    });
}

#[test]
fn hedges_and_retries_have_one_budget() {
    scenario(|node| {
        let web_ = Web::new(node)?;
        let hedge = "budget: {ratio: 0, floor: 0}, hedge: {after: 50ms, max: 3}";
        let agent = web_.agent_for_both(node, &policy(hedge))?;
        for _ in 0..4 {
            ensure!(web_.status(&[], "/slow?ms=300")?.0 == 200);
        }
        let seen = web(&agent)?;
        ensure!(
            seen["hedges"] == 0 && seen["retriesOverBudget"] == 4,
            "{seen}"
        );
        Ok(())
    });
}

#[test]
fn a_percentile_follows_the_answers() {
    scenario(|node| {
        let web_ = Web::new(node)?;
        let agent = web_.agent_for_both(node, &policy("hedge: {after: p95}"))?;
        // Nothing is known yet.
        ensure!(web_.status(&[], "/slow?ms=300")?.0 == 200);
        ensure!(web(&agent)?["hedges"] == 0);
        let url = format!("http://{}/ok?n=[1-60]", super::WEB);
        web_.client
            .run(["curl", "-sS", "-o", "/dev/null", &url])?
            .success()?;
        wait_until(BOUND, "a hedge to be faster", || {
            let begun = Instant::now();
            let name = web_.curl(&[], SLOW)?;
            let (took, seen) = (begun.elapsed(), web(&agent)?);
            ensure!(
                name == "other" && took < SOON,
                "{name} after {took:?}: {seen}"
            );
            Ok(web(&agent)?["hedgesWon"].as_u64() > Some(0))
        })
    });
}
