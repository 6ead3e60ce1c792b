//! Where time goes: each delay in its own stage, and in no other.

mod captured;
mod changing;
mod cost;
mod dashboard;
mod lost;
mod matching;
mod page;
mod prometheus;
mod server_time;
mod shown;
mod slow_reader;
mod terminal;
mod truth;
mod tunnels;
mod used;
mod waited_for;
mod ways;
mod without_requests;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Agent, Config, Node, Pod, Process, wait_until};
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, SERVER, SERVER6, at};

const BOUND: Duration = Duration::from_secs(20);
/// The address of the destination `web`, which no machine has.
const WEB: &str = "10.96.0.10";
const PORT: u16 = 8080;

/// Every request is measured.
const EVERY: &str = "latency: {sample: 1, mostPerSecond: 1000000, hardware: off}";

/// A client, and a server that takes as long as it is told.
struct Exact {
    client: Pod,
    server: Pod,
    _process: Process,
}

impl Exact {
    fn new(node: &Node) -> Result<Self> {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let server = node.pod("server", SERVER, Some(SERVER6))?;
        let mut process = server.spawn_python("exact_server.py", [at(SERVER, PORT)])?;
        process.wait_stdout("ready", BOUND)?;
        Ok(Self {
            client,
            server,
            _process: process,
        })
    }

    /// Has the client's queries captured, and a server for them.
    fn dns(&self, node: &Node) -> Result<(Config, Process)> {
        let arguments = [&at(SERVER, 53), "7", "0"];
        let mut server = self.server.spawn_python("dns_server.py", arguments)?;
        server.wait_stdout("ready", BOUND)?;
        let config = node.config();
        let config = config.pod_with(&self.client, &["capture: {dns: true}"]);
        Ok((config, server))
    }

    fn config(&self, node: &Node, latency: &str, policy: &str) -> Config {
        self.config_for(node, PORT, latency, policy)
    }

    /// The same for another server of the pod.
    fn config_for(&self, node: &Node, port: u16, latency: &str, policy: &str) -> Config {
        self.config_at(node, &at(SERVER, port), latency, policy)
    }

    /// The same for a server anywhere.
    fn config_at(&self, node: &Node, server: &str, latency: &str, policy: &str) -> Config {
        self.config_of(node, &[server], latency, policy)
    }

    /// The same for several of them.
    fn config_of(&self, node: &Node, servers: &[&str], latency: &str, policy: &str) -> Config {
        let servers: Vec<String> = servers
            .iter()
            .map(|address| format!("{{address: '{address}'}}"))
            .collect();
        node.config().pod(&self.client).after(&format!(
            "destinations: [{{name: web, hosts: [web.demo], addresses: [{WEB}], port: 80, \
             endpoints: [{}], policy: {policy}}}]\n{latency}",
            servers.join(", ")
        ))
    }

    /// Asks `count` times; what the client saw of each.
    fn ask(&self, target: &str, count: u32, options: &[&str]) -> Result<Vec<Value>> {
        self.ask_at(&at(WEB, 80), target, count, options)
    }

    /// The same where there is another address.
    fn ask_at(
        &self,
        address: &str,
        target: &str,
        count: u32,
        options: &[&str],
    ) -> Result<Vec<Value>> {
        let mut argv = vec![address.to_owned(), target.to_owned(), count.to_string()];
        argv.extend(options.iter().map(|&option| option.to_owned()));
        let text = self.client.python("exact_client.py", argv)?.success()?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// What the admin socket answers.
fn admin(node: &Node, path: &str) -> Result<Value> {
    let output = std::process::Command::new("curl")
        .args(["-sSg", "--fail", "--max-time", "5", "--unix-socket"])
        .arg(node.dir().join("admin.sock"))
        .arg(format!("http://agent{path}"))
        .output()?;
    ensure!(
        output.status.success(),
        "{path}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The last `count` requests, once they are told of; the oldest first.
fn traces(node: &Node, count: usize) -> Result<Vec<Value>> {
    traces_to(node, "web", count)
}

/// The same of another destination.
fn traces_to(node: &Node, destination: &str, count: usize) -> Result<Vec<Value>> {
    let path = format!("/traces?destination={destination}&n=1000");
    let mut all = Vec::new();
    wait_until(BOUND, "the traces", || {
        let answer = admin(node, &path)?;
        all.clone_from(answer.as_array().context("no list")?);
        Ok(all.len() >= count)
    })?;
    all.truncate(count);
    all.reverse();
    Ok(all)
}

/// How long a stage of a request took, in microseconds.
fn stage(trace: &Value, name: &str) -> Result<f64> {
    trace["stages"][name]
        .as_f64()
        .with_context(|| format!("no stage {name}: {trace}"))
}

/// When something happened to a request, in microseconds since its first byte came.
fn point(trace: &Value, what: &str) -> Result<f64> {
    let at = found(trace, what)?["at"].as_f64();
    at.with_context(|| format!("no time: {trace}"))
}

/// And who says so.
fn source<'a>(trace: &'a Value, what: &str) -> Result<&'a Value> {
    Ok(&found(trace, what)?["source"])
}

fn found<'a>(trace: &'a Value, what: &str) -> Result<&'a Value> {
    let points = trace["points"].as_array().context("no points")?;
    let point = points.iter().find(|point| point["what"] == what);
    point.with_context(|| format!("no point {what}: {trace}"))
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The agent's counts of stamps.
fn stamps(node: &Node, _agent: &Agent) -> Result<Value> {
    Ok(admin(node, "/latency")?["stamps"].clone())
}
