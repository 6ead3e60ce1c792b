//! HTTP through the agent and through other proxies, which iptables REDIRECT sends connections to.
//! All of them stand ready at once and are loaded in turn; all have the same policy.

mod load;
mod proxies;
mod report;

use super::workload::{client_program, listens};
use crate::interrupt::Running;
use crate::lab::{Agent, Lab, Pod};
use anyhow::{Context, Result, ensure};
use load::{Load, Measured};
pub use report::Report;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Where requests go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Subject {
    /// Nothing.
    Direct,
    /// The agent.
    Agent,
    /// The same agent, with every breaker and limit on.
    #[value(name = "agent-policies")]
    AgentWithPolicies,
    /// The agent, without packet timestamps.
    #[value(name = "agent-unmeasured")]
    AgentUnmeasured,
    /// The agent, with one request in 100 measured by packet timestamps.
    #[value(name = "agent-sampled")]
    AgentSampled,
    /// The agent, with every request measured by packet timestamps.
    #[value(name = "agent-stamped")]
    AgentStamped,
    /// Envoy.
    Envoy,
    /// nginx, which speaks HTTP/1 to servers whatever its clients speak.
    Nginx,
    /// HAProxy.
    #[value(name = "haproxy")]
    HaProxy,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Direct,
        Self::Agent,
        Self::AgentWithPolicies,
        Self::AgentUnmeasured,
        Self::AgentSampled,
        Self::AgentStamped,
        Self::Envoy,
        Self::Nginx,
        Self::HaProxy,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Agent => "agent",
            Self::AgentWithPolicies => "agent+all",
            Self::AgentUnmeasured => "unmeasured",
            Self::AgentSampled => "1 in 100",
            Self::AgentStamped => "all stamped",
            Self::Envoy => "Envoy",
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
        }
    }

    /// Name and address of its client's pod, where the proxy is as well.
    fn pod(self) -> (&'static str, &'static str) {
        match self {
            Self::Direct => ("web-direct", "10.78.0.41"),
            _ if self.latency().is_some() => ("web-agent", "10.78.0.42"),
            Self::Envoy => ("web-envoy", "10.78.0.43"),
            Self::Nginx => ("web-nginx", "10.78.0.44"),
            _ => ("web-haproxy", "10.78.0.45"),
        }
    }

    /// What the agent's file has of `latency`, if it is the agent: as it comes, or other than that.
    const fn latency(self) -> Option<&'static str> {
        match self {
            Self::Agent | Self::AgentWithPolicies => Some("{}"),
            Self::AgentUnmeasured => Some("{sample: 0}"),
            Self::AgentSampled => Some("{sample: 0.01, mostPerSecond: 1000000}"),
            Self::AgentStamped => Some("{sample: 1, mostPerSecond: 1000000}"),
            _ => None,
        }
    }
}

/// HTTP/1.1, or HTTP/2 with prior knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    /// Where the server listens for it.
    const fn server_port(self) -> u16 {
        match self {
            Self::Http1 => 8080,
            Self::Http2 => 8081,
        }
    }

    /// Where the destination is.
    const fn port(self) -> u16 {
        match self {
            Self::Http1 => 80,
            Self::Http2 => 81,
        }
    }

    /// Where the destination with every breaker and limit is.
    const fn port_with_policies(self) -> u16 {
        self.port() + 10
    }

    /// Where a proxy listens for it, behind iptables.
    const fn proxy_port(self) -> u16 {
        match self {
            Self::Http1 => 15001,
            Self::Http2 => 15002,
        }
    }
}

const SERVER: (&str, &str) = ("web-server", "10.78.0.40");
/// The address of the destination, which no machine has.
const DESTINATION: &str = "10.96.0.10";

/// The pods, the server and the proxies.
struct Site {
    /// Those that are there and wanted.
    subjects: Vec<Subject>,
    clients: BTreeMap<&'static str, Pod>,
    agent: Agent,
    /// How that measures.
    latency: &'static str,
    proxies: BTreeMap<Subject, Running>,
    _server: Running,
}

/// Measures the loads with `named` in their names, and of `wanted` or all subjects, in turn: `rounds` times
/// for `seconds` each.
pub fn run(
    lab: &Lab,
    binary: &Path,
    rounds: u32,
    seconds: u32,
    named: &str,
    wanted: &[Subject],
) -> Result<Report> {
    let mut site = Site::open(lab, binary)?;
    site.subjects
        .retain(|subject| wanted.is_empty() || wanted.contains(subject));
    let mut loads = Load::all();
    loads.retain(|load| load.name().contains(named));
    let mut report = Report::new(site.subjects(), loads.clone());
    let log = lab.file("response-times");
    for round in 0..rounds {
        println!("HTTP, round {} of {rounds}", round + 1);
        for load in loads.iter().copied() {
            let mut subjects = site.subjects();
            if round % 2 == 1 {
                subjects.reverse();
            }
            for subject in subjects {
                site.measure_like(lab, binary, subject)?;
                let measured = site.measure(subject, load, seconds, &log);
                let measured =
                    measured.with_context(|| format!("{}, {}", load.name(), subject.name()))?;
                println!("  {:<34} {:<11} {measured}", load.name(), subject.name());
                report.add(subject, load, measured);
            }
        }
    }
    for subject in site.subjects() {
        if let Some(process) = site.process(subject) {
            report.memory.insert(subject, load::peak_memory(process)?);
        }
    }
    site.close()?;
    Ok(report)
}

impl Site {
    fn open(lab: &Lab, binary: &Path) -> Result<Self> {
        let server = lab.pod(SERVER.0, SERVER.1)?;
        let nginx = proxies::server(lab, &server)?;
        let mut clients = BTreeMap::new();
        for (name, address) in Subject::ALL.map(Subject::pod) {
            if clients.contains_key(name) {
                continue;
            }
            let pod = lab.pod(name, address)?;
            super::variant::run_in(
                &pod,
                &["ip", "route", "add", "10.96.0.0/16", "via", SERVER.1],
            )?;
            clients.insert(name, pod);
        }
        let mut proxies = BTreeMap::new();
        for subject in [Subject::Envoy, Subject::Nginx, Subject::HaProxy] {
            let Some(pod) = clients.get(subject.pod().0) else {
                continue;
            };
            if let Some(proxy) = proxies::start(lab, pod, subject)? {
                proxies.insert(subject, proxy);
                proxies::redirect(pod)?;
            } else {
                clients.remove(subject.pod().0);
            }
        }
        let pod = clients
            .get(Subject::Agent.pod().0)
            .context("no pod for the agent")?;
        let latency = "{}";
        let configuration = proxies::agent_configuration(lab, pod, latency);
        let agent = Agent::start(lab, binary, &configuration)?;
        let is_there = |subject: &Subject| clients.contains_key(subject.pod().0);
        Ok(Self {
            subjects: Subject::ALL.into_iter().filter(is_there).collect(),
            clients,
            agent,
            latency,
            proxies,
            _server: nginx,
        })
    }

    /// Starts the agent anew if it measures in another way than `subject` does: what was measured once costs a bit
    /// for as long as its connections live.
    fn measure_like(&mut self, lab: &Lab, binary: &Path, subject: Subject) -> Result<()> {
        let Some(latency) = subject.latency().filter(|it| *it != self.latency) else {
            return Ok(());
        };
        let pod = self.clients.get(subject.pod().0).context("no such pod")?;
        let configuration = proxies::agent_configuration(lab, pod, latency);
        self.agent.restart(lab, binary, &configuration)?;
        self.latency = latency;
        Ok(())
    }

    /// Those that there are on this machine.
    fn subjects(&self) -> Vec<Subject> {
        self.subjects.clone()
    }

    fn process(&self, subject: Subject) -> Option<u32> {
        match subject {
            _ if subject.latency().is_some() => Some(self.agent.pid()),
            _ => self.proxies.get(&subject).map(Running::pid),
        }
    }

    fn measure(&self, subject: Subject, load: Load, seconds: u32, log: &Path) -> Result<Measured> {
        let client = self.clients.get(subject.pod().0).context("no such pod")?;
        let (host, port) = match subject {
            Subject::Direct => (SERVER.1, load.protocol.server_port()),
            Subject::AgentWithPolicies => (DESTINATION, load.protocol.port_with_policies()),
            _ => (DESTINATION, load.protocol.port()),
        };
        let url = format!("http://{host}:{port}/{}", load.page());
        let generator = client_program(client, "h2load");
        load.run(
            generator,
            &url,
            self.process(subject),
            Duration::from_secs(seconds.into()),
            log,
        )
    }

    fn close(self) -> Result<()> {
        let Self { agent, proxies, .. } = self;
        drop(proxies);
        let (status, log, _) = agent.terminate()?;
        ensure!(status.success(), "the agent ended with {status}:\n{log}");
        Ok(())
    }
}

fn is_listening(pod: &Pod) -> bool {
    Protocol::ALL
        .into_iter()
        .all(|protocol| listens(pod, protocol.proxy_port()))
}
