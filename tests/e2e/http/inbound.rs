//! Requests to servers in pods: looked into on request, and as faithful.

use anyhow::ensure;
use mesh_tests::{scenario, wait_until};
use serde_json::{Value, json};

use super::{BOUND, PORT, Web, asked};
use crate::peers::{CLIENT, CLIENT6, SERVER, SERVER6, at};

const CAPTURE: &str = "capture: {outbound: false, inbound: true, inboundProtocol: auto}";

#[test]
fn servers_see_their_client_and_one_connection_of_its_for_each_of_its_own() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = node.agent(&node.config().pod_with(&web.server, &[CAPTURE]))?;
        for (server, client, port) in [(SERVER, CLIENT, "41234"), (SERVER6, CLIENT6, "41235")] {
            let url = format!("http://{}/peer", at(server, PORT));
            let seen = web
                .client
                .run(["curl", "-sSg", "--local-port", port, &url, &url])?
                .success()?;
            // Both requests of one connection, with the port that the client really has.
            let peer = at(client, port.parse()?);
            ensure!(seen == peer.repeat(2), "{seen}");
        }
        // One for each client, one for the question, none left open.
        let log = Web::log(&web.server)?;
        ensure!(asked(&log, "connections") == 3, "{log}");
        wait_until(
            BOUND,
            "the server's connections to end with their clients'",
            || {
                let open = web.server.run(["ss", "-tnHO", "state", "established"])?;
                Ok(open.success()?.trim().is_empty())
            },
        )?;
        let destinations = agent.json("destinations")?;
        let ours = destinations.as_array().into_iter().flatten();
        let answered = |it: &Value| it["answered"]["2xx"].as_u64();
        let tries = |it: &Value| it["endpoints"][0]["tries"].as_u64();
        let each: Vec<_> = ours.map(|it| (answered(it), tries(it))).collect();
        ensure!(each == [(Some(2), Some(2)); 2], "{destinations}");
        agent.wait_idle()
    });
}

#[test]
fn what_servers_speak_is_found_out_and_hostile_requests_do_not_reach_them() {
    scenario(|node| {
        let web = Web::new(node)?;
        let mut grpc = web
            .server
            .spawn_python("grpc_server.py", [at("0.0.0.0", 7004)])?;
        grpc.wait_stdout("ready", BOUND)?;
        let _identity = crate::peers::behaviours(&web.server, &["7001=identity"])?;
        let _agent = node.agent(&node.config().pod_with(&web.server, &[CAPTURE]))?;
        let calls = web
            .client
            .python("grpc_client.py", [at(SERVER, 7004), "1".to_owned()])?;
        let seen = calls.json()?;
        ensure!(
            seen["large"] == 3_000_000 && seen["slow"] == json!(["OK", "1"]),
            "{seen}"
        );
        let greeting = format!(
            "import socket\nc=socket.create_connection(('{SERVER}',7001))\nprint(c.recv(6).decode())"
        );
        let greeting = web.client.run(["python3", "-c", &greeting])?.success()?;
        ensure!(greeting.trim() == "server", "{greeting}");
        let hostile = "GET /ok HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: +1\\r\\n\\r\\nx";
        let heard = web
            .client
            .python("http_raw.py", [&*at(SERVER, PORT), hostile])?
            .success()?;
        ensure!(
            heard.starts_with("HTTP/1.1 400") && heard.contains("malformed_content_length"),
            "{heard}"
        );
        let log = Web::log(&web.server)?;
        ensure!(asked(&log, "/ok") == 0, "{log}");
        Ok(())
    });
}
