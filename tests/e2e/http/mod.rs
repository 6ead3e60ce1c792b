//! HTTP through the agent: faithful to both sides, balanced, with time-outs and retries.

mod advise;
mod attacks;
mod balancing;
mod breaker;
mod chain;
mod concurrency;
mod connect;
mod detection;
mod differential;
mod faithful;
mod fallback;
mod grpc;
mod health_checks;
mod hedging;
mod hostile;
mod inbound;
mod interim;
mod overload;
mod rate_limits;
mod retries;
mod scenarios;
mod shared_rates;
mod streams;
mod telemetry;
mod timeouts;

use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_tests::{Agent, Node, Pod, Process};
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, OTHER, OTHER6, SERVER, SERVER6, at};

const BOUND: Duration = Duration::from_secs(20);

/// The address of the destination `web`, which no machine has.
const WEB: &str = "10.96.0.10";
/// Where its servers listen.
const PORT: u16 = 8080;

/// A client and two servers of one destination.
struct Web {
    client: Pod,
    server: Pod,
    other: Pod,
    _servers: [Process; 2],
}

impl Web {
    fn new(node: &Node) -> Result<Self> {
        let web = |pod: &Pod, v4: &str, v6: &str| -> Result<Process> {
            let addresses = [pod.name().to_owned(), at(v4, PORT), at(v6, PORT)];
            let mut server = pod.spawn_python("http_server.py", addresses)?;
            server.wait_stdout("ready", BOUND)?;
            Ok(server)
        };
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let server = node.pod("server", SERVER, Some(SERVER6))?;
        let other = node.pod("other", OTHER, Some(OTHER6))?;
        let servers = [web(&server, SERVER, SERVER6)?, web(&other, OTHER, OTHER6)?];
        Ok(Self {
            client,
            server,
            other,
            _servers: servers,
        })
    }

    /// The file with destination `web` on `endpoints` and this policy.
    fn config(&self, node: &Node, endpoints: &[&str], policy: &str) -> mesh_tests::Config {
        let endpoints: Vec<String> = endpoints
            .iter()
            .map(|address| format!("{{address: '{address}'}}"))
            .collect();
        node.config().pod(&self.client).after(&format!(
            "destinations: [{{name: web, hosts: [web.demo], addresses: [{WEB}], port: 80, \
             endpoints: [{}], policy: {policy}}}]",
            endpoints.join(", ")
        ))
    }

    /// An agent for one server.
    fn agent(&self, node: &Node, policy: &str) -> Result<Agent> {
        node.agent(&self.config(node, &[&at(SERVER, PORT)], policy))
    }

    /// An agent for both.
    fn agent_for_both(&self, node: &Node, policy: &str) -> Result<Agent> {
        let endpoints = [at(SERVER, PORT), at(OTHER, PORT)];
        node.agent(&self.config(node, &endpoints.each_ref().map(String::as_str), policy))
    }

    /// What curl prints for a path of the destination.
    fn curl(&self, arguments: &[&str], path: &str) -> Result<String> {
        let url = format!("http://{WEB}{path}");
        let mut argv = vec!["curl", "-sS", "--max-time", "15"];
        argv.extend(arguments);
        argv.push(&url);
        self.client.run(argv)?.success()
    }

    /// The status that curl sees, and the reason, if the agent gave one.
    fn status(&self, arguments: &[&str], path: &str) -> Result<(u16, String)> {
        let form = "%{http_code} %header{x-mesh-reason}";
        let mut more = vec!["-o", "/dev/null", "-w", form];
        more.extend(arguments);
        let text = self.curl(&more, path)?;
        let (status, reason) = text.split_once(' ').context("no status")?;
        Ok((status.parse()?, reason.to_owned()))
    }

    /// What raw bytes are answered with.
    fn raw(&self, arguments: &[&str]) -> Result<String> {
        let mut argv = vec![at(WEB, 80)];
        argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.client.python("http_raw.py", argv)?.success()
    }

    /// How often a server was asked, by path; `connections` among them.
    fn log(server: &Pod) -> Result<Value> {
        let url = format!("http://{}/log", at(server.address(), PORT));
        server.run(["curl", "-sS", &url])?.json()
    }
}

/// How often `path` was asked for.
fn asked(log: &Value, path: &str) -> u64 {
    log[path].as_u64().unwrap_or(0)
}
