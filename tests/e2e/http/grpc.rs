//! gRPC: every kind of call, statuses in headers and trailers, deadlines, retries.

use anyhow::{Result, ensure};
use mesh_tests::{Node, scenario};
use serde_json::{Value, json};

use super::{BOUND, WEB, Web};
use crate::peers::{SERVER, at};

const GRPC_PORT: u16 = 50051;

/// What the client says of its calls; the last takes `slow` milliseconds.
fn calls(node: &Node, policy: &str, slow: &str) -> Result<Value> {
    let web = Web::new(node)?;
    let address = at(SERVER, GRPC_PORT);
    let mut server = web.server.spawn_python("grpc_server.py", [&address])?;
    server.wait_stdout("ready", BOUND)?;
    let _agent = node.agent(&web.config(node, &[&address], policy))?;
    let client = web.client.python("grpc_client.py", [&at(WEB, 80), slow])?;
    client.json()
}

#[test]
fn every_kind_of_call_is_as_without_the_agent() {
    scenario(|node| {
        let seen = calls(node, "{}", "10")?;
        ensure!(
            seen["unary"][0] == "hello" && seen["unary"][1] == "mine",
            "{seen}"
        );
        let left = seen["unary"][2].as_u64().unwrap_or(0);
        // gRPC rounds what it tells up to hundredths of a second.
        ensure!((4_000..=5_010).contains(&left), "{seen}");
        ensure!(seen["large"] == 3_000_000, "{seen}");
        ensure!(
            seen["down"] == json!([1000]) && seen["up"] == 1_000_000,
            "{seen}"
        );
        ensure!(seen["both"] == json!((0..50).collect::<Vec<_>>()), "{seen}");
        ensure!(seen["gone"] == json!(["UNAVAILABLE", ""]), "{seen}");
        ensure!(
            seen["abort"][13] == "UNAVAILABLE" && seen["abort"][15] == "UNAUTHENTICATED",
            "{seen}"
        );
        ensure!(seen["own deadline"][0] == "DEADLINE_EXCEEDED", "{seen}");
        ensure!(seen["unknown"][0] == "UNIMPLEMENTED", "{seen}");
        ensure!(seen["slow"] == json!(["OK", "10"]), "{seen}");
        Ok(())
    });
}

#[test]
fn calls_that_are_unavailable_are_tried_again_and_late_ones_end() {
    scenario(|node| {
        let policy = "{timeouts: {request: 1s}, retries: {attempts: 2}}";
        let seen = calls(node, policy, "5000")?;
        ensure!(seen["fail"] == json!(["OK", "3"]), "{seen}");
        ensure!(seen["gone"] == json!(["UNAVAILABLE", ""]), "{seen}");
        // What the server is told: what is left of the policy's second.
        let left = seen["unary"][2].as_u64().unwrap_or(0);
        ensure!((500..=1_000).contains(&left), "{seen}");
        // Which end notices first is chance.
        ensure!(seen["slow"][0] == "DEADLINE_EXCEEDED", "{seen}");
        Ok(())
    });
}

#[test]
fn a_server_that_is_not_there_is_unavailable_with_the_reason() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = node.agent(&web.config(node, &[&at(SERVER, 1)], "{}"))?;
        let script = format!(
            "import grpc\nchannel = grpc.insecure_channel('{WEB}:80')\n\
             try: channel.unary_unary('/Test/unary')(b'')\n\
             except grpc.RpcError as error:\n  print(error.code().name, error.details())"
        );
        let python = mesh_tests::python();
        let text = web.client.run([python, "-c", &script])?.success()?;
        ensure!(text.trim() == "UNAVAILABLE connect_failure", "{text}");
        Ok(())
    });
}
