//! What connections become that were measured as HTTP: tunnels, whose packets' last stamps are still to come.

use anyhow::{Result, ensure};
use mesh_tests::{Agent, Node, Process, Scenario, say, scenario};
use serde_json::{Value, json};

use super::{
    BOUND, EVERY, Exact, WEB,
    cost::{IDLE, used_while_stalled},
    stamps,
};
use crate::peers::{SERVER, at};

const PORT: u16 = 7110;
const UPGRADE: &str =
    "GET /lines HTTP/1.1\r\nhost: web.demo\r\nconnection: upgrade\r\nupgrade: lines";
const CONNECT: &str = "CONNECT a.b:443 HTTP/1.1\r\nhost: a.b:443";

/// A client and a server whose connection becomes a tunnel after a request that is measured. What the agent has sent
/// to both until then is lost, and sent again after that.
struct Tunnels {
    exact: Exact,
    server: Process,
    agent: Agent,
    head: &'static str,
}

impl Tunnels {
    fn new(node: &Node, head: &'static str, answer: &str) -> Result<Self> {
        let exact = Exact::new(node)?;
        let address = at(SERVER, PORT);
        let arguments = ["server", &address, answer];
        let mut server = exact.server.spawn_python("tunnel.py", arguments)?;
        server.wait_stdout("ready", BOUND)?;
        let policy = "{allowConnect: true, retries: {}}";
        let agent = node.agent(&exact.config_for(node, PORT, EVERY, policy))?;
        Ok(Self {
            exact,
            server,
            agent,
            head,
        })
    }

    fn arguments(&self, case: &str) -> [String; 4] {
        ["client", &at(WEB, 80), self.head, case].map(str::to_owned)
    }

    /// What the client says of a case.
    fn case(&self, case: &str) -> Result<Value> {
        let client = &self.exact.client;
        client.python("tunnel.py", self.arguments(case))?.json()
    }

    /// Whether bytes come over a tunnel, and ends; and resets, as such.
    fn ensure_all_passes(&mut self, node: &Node) -> Result<()> {
        let seen = self.case("echo")?;
        ensure!(seen == json!({"same": true, "then": "bye"}), "{seen}");
        let seen = self.case("server-resets")?;
        ensure!(seen == json!({"reset": "ECONNRESET"}), "{seen}");
        let client = &self.exact.client;
        let client = client.python("tunnel.py", self.arguments("client-resets"))?;
        client.success()?;
        self.server.wait_stdout("ECONNRESET", BOUND)?;
        let stamps = stamps(node, &self.agent)?;
        // Or else nothing was late.
        ensure!(stamps["measured"] == 3, "{stamps}");
        self.agent.wait_idle()
    }

    /// Begins a case in which one side soon reads nothing more.
    fn begin(&self, case: &str) -> Result<Process> {
        let client = &self.exact.client;
        let mut client = client.spawn_python("tunnel.py", self.arguments(case))?;
        client.wait_stdout("begun", BOUND)?;
        Ok(client)
    }
}

#[test]
fn an_upgraded_connection_outlives_stamps_that_come_late() {
    scenario(|node| Tunnels::new(node, UPGRADE, "101")?.ensure_all_passes(node));
}

#[test]
fn a_tunnel_of_connect_outlives_stamps_that_come_late() {
    scenario(|node| Tunnels::new(node, CONNECT, "200")?.ensure_all_passes(node));
}

/// Once nothing moves any more, it costs nothing.
fn a_stall_costs_nothing(case: &str) {
    Scenario::default().alone().run(|node| {
        let tunnels = Tunnels::new(node, UPGRADE, "101")?;
        let mut client = tunnels.begin(case)?;
        let used = used_while_stalled(&tunnels.agent)?;
        say(&format!("{:.1}% of a processor", used * 100.0));
        ensure!(used < IDLE, "{used}");
        ensure!(stamps(node, &tunnels.agent)?["measured"] == 1);
        client.kill()
    });
}

#[test]
fn a_client_that_stops_reading_from_a_tunnel_costs_nothing() {
    a_stall_costs_nothing("flood");
}

#[test]
fn a_server_that_stops_reading_from_a_tunnel_costs_nothing() {
    a_stall_costs_nothing("stall");
}

/// Each on a stream of its own, so that the connection stays one of HTTP/2.
#[test]
fn tunnels_on_streams_that_are_measured_are_as_without() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let address = at(SERVER, PORT);
        let arguments = ["server", &address];
        let mut server = exact.server.spawn_python("h2_connect.py", arguments)?;
        server.wait_stdout("ready", BOUND)?;
        let policy = "{allowConnect: true, retries: {}}";
        let agent = node.agent(&exact.config_for(node, PORT, EVERY, policy))?;
        let client = &exact.client;
        let client = client.python("h2_connect.py", ["client", &at(WEB, 80), "3"])?;
        let seen = client.json()?;
        let expected = json!({"tunnel": [true, "bye 3000000", "end"], "reset": "reset 2"});
        ensure!(seen == expected, "{seen}");
        server.wait_stdout("reset 5 8", BOUND)?;
        let stamps = stamps(node, &agent)?;
        ensure!(stamps["measured"] == 1, "{stamps}");
        Ok(())
    });
}
