//! What measuring costs, and what it must not.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Agent, Scenario, say, wait_until};

use super::{BOUND, EVERY, Exact, WEB, stamps};
use crate::peers::{SERVER, at};

/// Where a server of HTTP/2 listens.
const HTTP2: u16 = 7111;

/// What an agent may use of a processor while the peers of its connections do not read.
pub(super) const IDLE: f64 = 0.05;

/// The bytes that all open connections have carried.
fn carried(agent: &Agent) -> Result<u64> {
    let connections = agent.json("connections")?;
    let connections = connections.as_array().context("no list")?;
    let bytes = connections.iter().flat_map(|it| {
        ["bytesSent", "bytesReceived"].map(|field| it[field].as_u64().unwrap_or_default())
    });
    Ok(bytes.sum())
}

/// The share of a processor that the agent uses once nothing moves any more.
pub(super) fn used_while_stalled(agent: &Agent) -> Result<f64> {
    let mut before = 0;
    let mut same = 0;
    wait_until(BOUND, "nothing moves", || {
        let now = carried(agent)?;
        same = if now == before && now > 100_000 {
            same + 1
        } else {
            0
        };
        before = now;
        Ok(same > 5)
    })?;
    let begun = agent.processor_time()?;
    // It is this time that is looked at.
    std::thread::sleep(Duration::from_secs(1));
    let used = agent.processor_time()?.saturating_sub(begun);
    // The kernel may still make its buffers larger, and fill them.
    let moved = carried(agent)? - before;
    ensure!(moved < 2_000_000, "{moved} bytes have moved");
    Ok(used.as_secs_f64())
}

#[test]
fn a_client_that_stops_reading_costs_nothing() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        // The first answer is stamped, so that there is something in the error queue's past.
        let script = "import socket,sys,time\n\
            c = socket.socket()\n\
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)\n\
            c.connect((sys.argv[1], 80))\n\
            get = lambda path: c.sendall(b'GET ' + path + b' HTTP/1.1\\r\\nhost: web.demo\\r\\n\\r\\n')\n\
            get(b'/wait')\n\
            print(len(c.recv(4096)), flush=True)\n\
            get(b'/body?bytes=50000000')\n\
            sys.stdin.read()\n";
        let mut client = exact.client.spawn(["python3", "-c", script, WEB])?;
        let used = used_while_stalled(&agent)?;
        say(&format!("{:.1}% of a processor", used * 100.0));
        ensure!(used < IDLE, "{used}");
        ensure!(stamps(node, &agent)?["matched"].as_u64() >= Some(4));
        client.kill()
    });
}

#[test]
fn a_server_that_stops_reading_costs_nothing() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        let script = "import socket,sys\n\
            c = socket.create_connection((sys.argv[1], 80))\n\
            c.sendall(b'GET /wait HTTP/1.1\\r\\nhost: web.demo\\r\\n\\r\\n')\n\
            print(len(c.recv(4096)), flush=True)\n\
            c.sendall(b'POST /stall?us=20000000 HTTP/1.1\\r\\nhost: web.demo\\r\\n'\n\
            \x20   b'content-length: 50000000\\r\\n\\r\\n')\n\
            for _ in range(50): c.sendall(bytes(1000000))\n";
        let mut client = exact.client.spawn(["python3", "-c", script, WEB])?;
        let used = used_while_stalled(&agent)?;
        say(&format!("{:.1}% of a processor", used * 100.0));
        ensure!(used < IDLE, "{used}");
        client.kill()
    });
}

/// Once one side reads nothing more over a connection of HTTP/2 with open windows, it costs nothing.
fn a_stall_of_http2_costs_nothing(case: &str) {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let address = at(SERVER, HTTP2);
        let arguments = ["server", &address, "50000000", "0"];
        let mut server = exact.server.spawn_python("h2_stall.py", arguments)?;
        server.wait_stdout("ready", BOUND)?;
        let agent = node.agent(&exact.config_for(node, HTTP2, EVERY, "{}"))?;
        let arguments = ["client", &at(WEB, 80), case];
        let mut client = exact.client.spawn_python("h2_stall.py", arguments)?;
        // The first answer is stamped, on both connections.
        client.wait_stdout("begun", BOUND)?;
        let used = used_while_stalled(&agent)?;
        say(&format!("{:.1}% of a processor", used * 100.0));
        ensure!(used < IDLE, "{used}");
        let stamps = stamps(node, &agent)?;
        ensure!(stamps["matched"].as_u64() >= Some(2), "{stamps}");
        client.kill()
    });
}

#[test]
fn a_client_of_http2_that_stops_reading_costs_nothing() {
    a_stall_of_http2_costs_nothing("flood");
}

#[test]
fn a_server_of_http2_that_stops_reading_costs_nothing() {
    a_stall_of_http2_costs_nothing("stall");
}
