//! The loads: programs nobody here wrote, and what they and the kernel say about the run.

use super::cpu_time;
use super::dns;
use super::variant::{CLIENT_USER, start_server};
use crate::interrupt::Running;
use crate::lab::{Agent, Lab, Pod};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fmt;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// What to load the path with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Workload {
    /// Requests of 1 KiB on 16 kept connections, and the agent's own CPU time per request
    KeepAlive,
    /// The same requests, each on a new connection
    Connects,
    /// One stream from client to server
    Bulk,
    /// The same DNS query again and again, which the agent answers from what it keeps
    DnsCached,
    /// A DNS query for another name each time
    DnsUncached,
    /// HTTP requests, beside other proxies with the same policy
    Http,
    /// What it costs to measure pods' own sockets
    PodSockets,
    /// Memory of an agent with 100 pods and no traffic
    Idle,
}

/// The outcome of one run.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Requests or bits per second.
    pub rate: f64,
    /// CPU time of the agent's process per request, in microseconds.
    pub agent_cpu: Option<f64>,
    /// Mean time to an answer with one request under way, in microseconds.
    pub latency: Option<f64>,
    workload: Workload,
}

const CONNECTIONS: &str = "-c16";
const HTTP_PORT: u16 = 8080;
const BULK_PORT: u16 = 5201;

impl Workload {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::KeepAlive,
        Self::Connects,
        Self::Bulk,
        Self::DnsCached,
        Self::DnsUncached,
        Self::Http,
        Self::PodSockets,
        Self::Idle,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Connects => "connects",
            Self::Bulk => "bulk",
            Self::DnsCached => "dns-cached",
            Self::DnsUncached => "dns-uncached",
            Self::Http => "http",
            Self::PodSockets => "pod-sockets",
            Self::Idle => "idle",
        }
    }

    /// What its rate counts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::KeepAlive | Self::Http | Self::PodSockets => "requests/s",
            Self::Connects => "connections/s",
            Self::Bulk => "Gbit/s",
            Self::DnsCached | Self::DnsUncached => "queries/s",
            Self::Idle => "MiB",
        }
    }

    /// Whether it sends traffic from pod to pod.
    pub fn is_path(self) -> bool {
        !matches!(self, Self::Idle | Self::Http | Self::PodSockets)
    }

    /// Whether it asks DNS servers, which concerns no variant that captures on the server's side or
    /// only TCP.
    pub fn is_dns(self) -> bool {
        matches!(self, Self::DnsCached | Self::DnsUncached)
    }

    /// A rate, in its unit, as the table prints it.
    pub fn format(self, rate: f64) -> String {
        match self {
            Self::Bulk | Self::Idle => format!("{rate:.2}"),
            _ => format!("{rate:.0}"),
        }
    }

    /// Runs the load from `client` to `server` for `length`.
    pub fn run(
        self,
        lab: &Lab,
        client: &Pod,
        server: &Pod,
        agent: Option<&Agent>,
        length: Duration,
    ) -> Result<Measured> {
        let seconds = length.as_secs();
        let used = |agent: &Agent| cpu_time::of_process(agent.pid());
        let before = agent.map(used).transpose()?;
        let mut latency = None;
        let (rate, requests) = match self {
            Self::KeepAlive => wrk(client, server, seconds, &[])?,
            Self::Connects => wrk(client, server, seconds, &["-H", "Connection: close"])?,
            Self::Bulk => (iperf(client, server, seconds)?, 0.0),
            Self::DnsCached | Self::DnsUncached => {
                let seen = dns::run(lab, client, server, self == Self::DnsCached, length)?;
                latency = Some(seen.latency);
                (seen.rate, seen.queries)
            }
            Self::Idle | Self::Http | Self::PodSockets => {
                bail!("no traffic that goes every way of capturing")
            }
        };
        let spent = match (agent, before) {
            (Some(agent), Some(before)) if requests > 0.0 => Some(used(agent)? - before),
            _ => None,
        };
        let agent_cpu = spent.map(|spent| spent / requests * 1e6);
        Ok(Measured {
            rate,
            agent_cpu,
            latency,
            workload: self,
        })
    }
}

impl Measured {
    /// What slices of equal length come to together. `None` without slices.
    pub fn together(slices: &[Self]) -> Option<Self> {
        let mean =
            |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / slices.len() as f64;
        let first = slices.first()?;
        let requests: f64 = slices.iter().map(|slice| slice.rate).sum();
        Some(Self {
            rate: mean(&mut slices.iter().map(|slice| slice.rate)),
            // Per request, so a slice counts as much as it had requests.
            agent_cpu: slices
                .iter()
                .map(|slice| Some(slice.agent_cpu? * slice.rate / requests))
                .sum(),
            latency: slices
                .iter()
                .map(|slice| slice.latency)
                .sum::<Option<f64>>()
                .map(|sum| sum / slices.len() as f64),
            workload: first.workload,
        })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.workload.format(self.rate);
        write!(f, "{rate:>10} {}", self.workload.unit())?;
        if let Some(latency) = self.latency {
            write!(f, ", {latency:.1} µs for a single one")?;
        }
        match self.agent_cpu {
            Some(cpu) if cpu > 0.0 => write!(f, ", agent {cpu:.1} µs CPU per request"),
            _ => Ok(()),
        }
    }
}

/// A program of the client, as the user whose connects iptables redirects, in every variant.
pub fn client_program(client: &Pod, program: &str) -> Command {
    let mut command = client.command("setpriv");
    command
        .args([
            "--reuid",
            CLIENT_USER,
            "--regid",
            CLIENT_USER,
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

/// Requests per second, and how many they were.
fn wrk(client: &Pod, server: &Pod, seconds: u64, more: &[&str]) -> Result<(f64, f64)> {
    let url = format!("http://{}:{HTTP_PORT}/", server.address);
    let mut wrk = client_program(client, "wrk");
    wrk.args([
        "-t2",
        CONNECTIONS,
        "--timeout",
        "5s",
        &format!("-d{seconds}s"),
    ]);
    let output = wrk
        .args(more)
        .arg(url)
        .output()
        .context("cannot start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = text
        .lines()
        .find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    if let Some(errors) = errors {
        bail!(
            "wrk saw errors, so its rate means nothing: {}",
            errors.trim()
        );
    }
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"))
        .and_then(|rate| rate.trim().parse().ok());
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(requests, _)| requests.parse().ok());
    rate.zip(requests)
        .with_context(|| format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Gbit/s that arrived.
fn iperf(client: &Pod, server: &Pod, seconds: u64) -> Result<f64> {
    let output = client_program(client, "iperf3")
        .args([
            "--client",
            server.address,
            "--json",
            "--time",
            &seconds.to_string(),
        ])
        .output()
        .context("cannot start iperf3")?;
    let result: Value = serde_json::from_slice(&output.stdout).context("iperf3 printed no JSON")?;
    if let Some(error) = result["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let bits = result["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 reports no rate")? / 1e9)
}

/// nginx with a page of 1 KiB, and the receiving end of the bulk stream.
pub fn start_servers(lab: &Lab, server: &Pod) -> Result<Vec<Running>> {
    let directory = lab.file(&format!("nginx-{}", server.name));
    fs::create_dir_all(&directory).context("cannot create nginx's directory")?;
    let file = directory.join("nginx.conf");
    fs::write(&file, nginx_configuration(&directory.display().to_string()))
        .context("cannot write nginx's configuration")?;
    let mut nginx = server.command("nginx");
    nginx
        .arg("-e")
        .arg(directory.join("error.log"))
        .arg("-c")
        .arg(&file);
    let mut iperf = server.command("iperf3");
    iperf.args(["--server", "--port", &BULK_PORT.to_string()]);
    Ok(vec![
        start_server(nginx, || listens(server, HTTP_PORT))?,
        start_server(iperf, || listens(server, BULK_PORT))?,
        dns::start_server_in(lab, server)?,
    ])
}

/// Whether a TCP socket of the pod listens on `port`.
pub fn listens(server: &Pod, port: u16) -> bool {
    let table = server
        .command("cat")
        .args(["/proc/net/tcp", "/proc/net/tcp6"])
        .output();
    // Columns: slot, local address:port in hexadecimal, remote, state (0A is LISTEN).
    let suffix = format!(":{port:04X}");
    table.is_ok_and(|table| {
        String::from_utf8_lossy(&table.stdout).lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&suffix))
                && fields.get(3) == Some(&"0A")
        })
    })
}

fn nginx_configuration(directory: &str) -> String {
    let body = "x".repeat(1024);
    format!(
        "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log {directory}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 100000000;\n\
         \x20 client_body_temp_path {directory}/body;\n  proxy_temp_path {directory}/proxy;\n\
         \x20 fastcgi_temp_path {directory}/fastcgi;\n  uwsgi_temp_path {directory}/uwsgi;\n\
         \x20 scgi_temp_path {directory}/scgi;\n\
         \x20 server {{ listen {HTTP_PORT} backlog=4096; location / {{ return 200 \"{body}\"; }} }}\n}}\n"
    )
}

/// Resident memory of a process, in MiB.
pub fn resident_memory(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))
        .context("cannot read the agent's /proc status")?;
    let kibibytes: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse().ok())
        .context("no VmRSS in /proc status")?;
    ensure!(kibibytes > 0.0, "VmRSS is 0: the agent has ended");
    Ok(kibibytes / 1024.0)
}
