//! What the network loses is the network's fault, until TCP has sent it again.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Scenario, say};
use serde_json::Value;

use super::{
    BOUND, EVERY, Exact, admin, point, stage, traces,
    truth::{FAR, link},
};
use crate::peers::at;

/// A segment is sent again after 200 ms at least, as its acknowledgement may be held back so long
/// (`tcp_schedule_loss_probe` of net/ipv4/tcp_output.c); on a busy machine later.
const AGAIN: std::ops::Range<f64> = 150_000.0..900_000.0;
const EACH: usize = 4;

fn ensure_lost(trace: &Value) -> Result<()> {
    let (network, server) = (stage(trace, "network")?, stage(trace, "server")?);
    let again = point(trace, "request: sent again")?;
    let first = point(trace, "request: sent by the device")?;
    say(&format!(
        "network {network:.0} µs, server {server:.0} µs, sent again after {:.0} µs",
        again - first
    ));
    ensure!(AGAIN.contains(&network), "{trace}");
    // Less by what the shortest round trip is too long, on a machine that is emulated.
    ensure!((2_500.0..40_000.0).contains(&server), "{trace}");
    ensure!((network - (again - first)).abs() < 20_000.0, "{trace}");
    ensure!(trace["resent"].as_u64() >= Some(1), "{trace}");
    Ok(())
}

#[test]
fn a_request_that_is_lost_once_is_not_the_servers_fault() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let mut link = link(&exact, [1, 1])?;
        let far = at(FAR, 8090);
        let mut server = exact.server.spawn_python("exact_server.py", [&far])?;
        server.wait_stdout("ready", BOUND)?;
        let agent = node.agent(&exact.config_at(node, &far, EVERY, "{}"))?;
        let ask = || exact.ask("/wait?us=5000", 1, &[]).map(drop);
        for _ in 0..EACH {
            ask()?;
        }
        for _ in 0..EACH {
            link.lose(1)?;
            ask()?;
        }
        let all = traces(node, 2 * EACH)?;
        let (whole, lost) = all.split_at(EACH);
        // The first of them made the connection.
        for trace in &whole[1..] {
            ensure!(stage(trace, "network")? < 30_000.0, "{trace}");
            ensure!(point(trace, "request: sent again").is_err(), "{trace}");
            ensure!(trace["resent"] == 0, "{trace}");
        }
        for trace in lost {
            ensure_lost(trace)?;
        }
        let web = admin(node, "/latency")?["destinations"][0]["sinceStart"].clone();
        ensure!(web["retransmits"].as_u64() >= Some(EACH as u64), "{web}");
        let stamps = admin(node, "/latency")?["stamps"].clone();
        let again = stamps["again"].as_u64().context("no count")?;
        ensure!(again >= EACH as u64 && stamps["unmatched"] == 0, "{stamps}");
        agent.terminate(BOUND)
    });
}
