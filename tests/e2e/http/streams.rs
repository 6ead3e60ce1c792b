//! Streams of HTTP/2 that do not go the usual way.

use anyhow::ensure;
use mesh_tests::scenario;
use serde_json::{Value, json};

use super::{BOUND, WEB, Web};
use crate::peers::SERVER;

const PORT: &str = "7012";

/// How much of an answer may be between a server and a client that does not read, in bytes: the windows, and what
/// Node keeps.
const MOST_UNDERWAY: u64 = 8 << 20;

#[test]
fn resets_early_answers_and_slow_readers_are_for_each_side_what_they_are_for_the_other() {
    scenario(|node| {
        let web = Web::new(node)?;
        let program = mesh_tests::program("h2_streams.js").display().to_string();
        let mut server = web
            .server
            .spawn(["node", &program, "server", SERVER, PORT])?;
        server.wait_stdout("ready", BOUND)?;
        // One failure would keep all that follows from the server.
        let policy = "{breaker: {consecutive: 1, openFor: {base: 1m}}}";
        let config = web.config(node, &[&format!("{SERVER}:{PORT}")], policy);
        let agent = node.agent(&config)?;
        let before = agent.resident_bytes()?;
        let seen: Value = web
            .client
            .run(["node", &program, "client", WEB, "80"])?
            .json()?;
        // CANCEL, after what the client had sent.
        ensure!(seen["cancelled"] == json!([65_536, 8]), "{seen}");
        // INTERNAL_ERROR.
        ensure!(seen["refused"] == 2, "{seen}");
        ensure!(
            seen["early"] == json!(["early", [31 * 65_536, 0]]),
            "{seen}"
        );
        let sent = seen["stalled"]["sent"].as_u64();
        ensure!(sent.is_some_and(|sent| sent < MOST_UNDERWAY), "{seen}");
        ensure!(seen["stalled"]["missing"] == 0, "{seen}");
        ensure!(seen["after"] == "65536", "{seen}");
        let grown = agent.resident_bytes()?.saturating_sub(before);
        ensure!(grown < 2 * MOST_UNDERWAY, "{grown} bytes more");
        Ok(())
    });
}
