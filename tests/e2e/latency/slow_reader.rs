//! Who does not read is not the agent's fault.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Scenario, python, say, scenario};

use super::{BOUND, EVERY, Exact, WEB, admin, stage, traces};
use crate::peers::{SERVER, at};

/// Where the server speaks HTTP/2.
const HTTP2: u16 = 8091;

/// The whole answer has come, and waits for the window of the client's stream: TCP would take all of it.
#[test]
fn an_answer_that_waits_for_its_streams_window_is_not_the_agents_time() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let address = at(SERVER, HTTP2);
        let arguments = ["server", &address, "400000", "0.01"];
        let mut server = exact.server.spawn_python("h2_stall.py", arguments)?;
        server.wait_stdout("ready", BOUND)?;
        let _agent = node.agent(&exact.config_for(node, HTTP2, EVERY, "{}"))?;
        let arguments = ["client", &at(WEB, 80), "slow"];
        let mut client = exact.client.spawn_python("h2_stall.py", arguments)?;
        client.wait_stdout("read", BOUND)?;
        let all = traces(node, 2)?;
        let of =
            |names: &[&str]| -> Result<f64> { names.iter().map(|it| stage(&all[1], it)).sum() };
        let (theirs, ours) = (of(&["client", "transfer"])?, of(&["queue", "mesh"])?);
        say(&format!(
            "client and transfer {theirs:.0} µs, queue and mesh {ours:.0} µs"
        ));
        ensure!(theirs > 150_000.0 && ours < 50_000.0, "{}", all[1]);
        client.kill()
    });
}

/// The answer ends when the server's connection does: all of it was written by then, and the client may take its time to
/// close.
#[test]
fn an_answer_that_ends_with_its_connection_is_told_when_it_has() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let address = at(SERVER, HTTP2);
        let server = format!(
            "import socket, time\n\
             listener = socket.create_server(('{SERVER}', {HTTP2}))\n\
             print('ready', flush=True)\n\
             while True:\n    \
                 connection, _ = listener.accept()\n    \
                 connection.recv(65536)\n    \
                 connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nall of it')\n    \
                 time.sleep(0.05)\n    \
                 connection.close()"
        );
        let mut server = exact.server.spawn([python(), "-c", &server])?;
        server.wait_stdout("ready", BOUND)?;
        let _agent = node.agent(&exact.config_at(node, &address, EVERY, "{}"))?;
        // It keeps its end open for longer than the agent waits.
        let client = format!(
            "import socket, sys\n\
             connection = socket.create_connection(('{WEB}', 80))\n\
             connection.sendall(b'GET /closed HTTP/1.0\\r\\nHost: web\\r\\n\\r\\n')\n\
             while data := connection.recv(65536):\n    \
                 print(data, flush=True)\n\
             print('the end', flush=True)\n\
             sys.stdin.read()"
        );
        let mut client = exact.client.spawn([python(), "-c", &client])?;
        client.wait_stdout("the end", BOUND)?;
        let all = traces(node, 1)?;
        let total = all[0]["total"].as_f64().context("no total")?;
        say(&format!("{total:.0} µs"));
        ensure!(total < 300_000.0, "{}", all[0]);
        let stamps = admin(node, "/latency")?["stamps"].clone();
        ensure!(stamps["unfinished"] == 0, "{stamps}");
        client.kill()
    });
}
