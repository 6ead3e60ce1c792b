//! HTTP/2's known attacks: the connection ends, or costs its client more than the agent; nobody else notices.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::scenario;

use super::{WEB, Web};
use crate::peers::{SERVER, at};

/// How much memory one attacker may cost, in bytes: HTTP/2's windows, and what an allocator keeps.
const MOST_MEMORY: u64 = 24 << 20;

#[test]
fn one_client_s_attack_ends_with_its_connection() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{}")?;
        ensure!(web.curl(&[], "/ok")? == "server");
        let before = agent.resident_bytes()?;
        let attack = |name: &str| -> Result<(String, u64)> {
            let ended = web.client.python("h2_attack.py", [&*at(WEB, 80), name])?;
            let text = ended.success()?;
            let (ended, sent) = text.trim().rsplit_once(' ').context("no outcome")?;
            Ok((ended.to_owned(), sent.parse()?))
        };
        // How many frames: until the client hears of it, not what is read of them.
        for (name, outcomes, most) in [
            // ENHANCE_YOUR_CALM.
            ("rapid_reset", &["goaway 11"][..], 100_000),
            ("made_to_reset", &["goaway 11", "goaway 1"], 100_000),
            (
                "continuation",
                &["goaway 11", "goaway 1", "closed"],
                100_000,
            ),
            (
                "empty_continuation",
                &["goaway 11", "goaway 1", "closed"],
                100_000,
            ),
            ("streams", &["goaway 1", "goaway 11", "survived"], u64::MAX),
            // Answered, or read no more when the answers are not read.
            ("ping", &["survived", "goaway 11"], u64::MAX),
            ("settings", &["survived", "goaway 11"], u64::MAX),
            ("empty_data", &["survived", "goaway 11", "closed"], u64::MAX),
            ("deaf_ping", &["stalled"], u64::MAX),
            ("deaf_settings", &["stalled"], u64::MAX),
        ] {
            let (ended, sent) = attack(name)?;
            eprintln!("{name}: {ended} after {sent}");
            ensure!(
                outcomes.contains(&&*ended) && sent <= most,
                "{name}: {ended} after {sent} frames"
            );
            ensure!(web.curl(&["--max-time", "2"], "/ok")? == "server", "{name}");
        }
        let grown = agent.resident_bytes()?.saturating_sub(before);
        ensure!(grown < MOST_MEMORY, "{grown} bytes more");
        Ok(())
    });
}

#[test]
fn few_rapid_resets_reach_the_server() {
    scenario(|node| {
        let web = Web::new(node)?;
        // A server of HTTP/2, which would be asked for each.
        let _grpc = {
            let mut server = web
                .server
                .spawn_python("grpc_server.py", [at(SERVER, 7004)])?;
            server.wait_stdout("ready", super::BOUND)?;
            server
        };
        let agent = node.agent(&web.config(node, &[&at(SERVER, 7004)], "{}"))?;
        web.client
            .python("h2_attack.py", [&*at(WEB, 80), "rapid_reset"])?
            .success()?;
        let tries = agent.json("destinations")?[0]["endpoints"][0]["tries"].as_u64();
        ensure!(tries < Some(300), "{tries:?} tries");
        Ok(())
    });
}
