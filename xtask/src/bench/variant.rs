//! The ways of capturing, the pods to measure them in, and proof that each does what it is named.

use super::workload::{self, Measured, Workload};
use crate::interrupt::{self, Running};
use crate::lab::{self, Agent, Lab, Pod, PodEntry};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A way for connections to travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// No agent runs.
    NoMesh,
    /// An agent runs and is attached, and the pod is not one of its pods.
    Unenrolled,
    /// The agent captures.
    Agent,
    /// iptables REDIRECT sends connections to the same agent, whose kernel half lets them through.
    Iptables,
    /// The agent captures on the server's side, which is moved to loopback.
    InboundBind,
    /// The agent captures on the server's side, which is left where it is.
    InboundSkLookup,
}

impl Variant {
    /// All of them; those that are compared with each other stand next to each other.
    pub const ALL: [Self; 6] = [
        Self::NoMesh,
        Self::Unenrolled,
        Self::Agent,
        Self::Iptables,
        Self::InboundBind,
        Self::InboundSkLookup,
    ];

    /// Those that `load` means anything to.
    pub fn of(load: Workload) -> Vec<Self> {
        let concerned = |variant: &Self| {
            !load.is_dns() || matches!(variant, Self::NoMesh | Self::Unenrolled | Self::Agent)
        };
        Self::ALL.into_iter().filter(concerned).collect()
    }

    /// The order in one turn: forwards, backwards, and so on, so that a machine that gets slower or
    /// faster favours none.
    pub fn in_turn(load: Workload, turn: u32) -> Vec<Self> {
        let mut order = Self::of(load);
        if !turn.is_multiple_of(2) {
            order.reverse();
        }
        order
    }

    /// Name and address of its client.
    fn pod(self) -> (&'static str, &'static str) {
        match self {
            Self::NoMesh => ("no-mesh", "10.78.0.11"),
            Self::Unenrolled => ("unenrolled", "10.78.0.12"),
            Self::Agent => ("agent", "10.78.0.13"),
            Self::Iptables => ("iptables", "10.78.0.14"),
            Self::InboundBind => ("inbound-bind", "10.78.0.15"),
            Self::InboundSkLookup => ("inbound-lookup", "10.78.0.16"),
        }
    }

    /// Name and address of its server, if it has one of its own.
    fn server(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::InboundBind => Some(("server-bind", "10.78.0.31")),
            Self::InboundSkLookup => Some(("server-lookup", "10.78.0.32")),
            _ => None,
        }
    }

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoMesh => "no mesh",
            Self::Unenrolled => "unenrolled",
            Self::Agent => "agent",
            Self::Iptables => "iptables",
            Self::InboundBind => "in: bind",
            Self::InboundSkLookup => "in: skLookup",
        }
    }
}

/// The pods, the servers in one of them, and the agent's binary.
pub struct Site {
    lab: Lab,
    binary: PathBuf,
    /// Each variant has a client pod of its own: closed connections hold ports for a minute, and
    /// connection tracking stays on in a pod that once had a NAT rule.
    clients: BTreeMap<Variant, Pod>,
    server: Pod,
    /// Servers that are captured themselves.
    captured: BTreeMap<Variant, Pod>,
    bystander: String,
    _servers: Vec<Running>,
}

/// Whose connects iptables redirects. The agent's own run as root, so they are not caught.
pub const CLIENT_USER: &str = "20001";

impl Site {
    /// Makes the pods and starts the servers.
    pub fn open(binary: &Path) -> Result<Self> {
        let lab = Lab::open("mesh-bench")?;
        let mut clients = BTreeMap::new();
        for variant in Variant::ALL {
            let (name, address) = variant.pod();
            let pod = lab.pod(name, address)?;
            run_in(&pod, &["sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"])?;
            run_in(
                &pod,
                &["sysctl", "-qw", "net.ipv4.ip_local_port_range=10240 65535"],
            )?;
            clients.insert(variant, pod);
        }
        let server = lab.pod("server", "10.78.0.30")?;
        let captured = Variant::ALL
            .into_iter()
            .filter_map(|variant| Some((variant, variant.server()?)))
            .map(|(variant, (name, address))| Ok((variant, lab.pod(name, address)?)))
            .collect::<Result<_>>()?;
        let bystander = lab.bare_namespace("bystander")?;
        let servers = workload::start_servers(&lab, &server)?;
        let binary = binary.to_owned();
        let site = Self {
            lab,
            binary,
            clients,
            server,
            captured,
            bystander,
            _servers: servers,
        };
        let rule = "iptables -t nat -A OUTPUT -p tcp -m owner --uid-owner";
        let target = "-j REDIRECT --to-ports 15001";
        let words: Vec<&str> = rule
            .split(' ')
            .chain([CLIENT_USER])
            .chain(target.split(' '))
            .collect();
        run_in(site.client(Variant::Iptables)?, &words)?;
        Ok(site)
    }

    /// The agent's binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The pod of the servers that are not captured.
    pub fn server(&self) -> &Pod {
        &self.server
    }

    /// The lab the pods are in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Takes one measurement, with an agent of its own where the variant has one.
    pub fn measure(&self, variant: Variant, load: Workload, length: Duration) -> Result<Measured> {
        let client = self.client(variant)?;
        let agent = self
            .entry(variant, client)
            .map(|entry| self.start_agent(&entry))
            .transpose()?;
        let server = self.captured.get(&variant).unwrap_or(&self.server);
        // Servers that are captured begin under the agent, and end before it.
        let servers = self
            .captured
            .get(&variant)
            .map(|server| workload::start_servers(&self.lab, server))
            .transpose()?;
        let measured = load.run(&self.lab, client, server, agent.as_ref(), length)?;
        drop(servers);
        if let Some(agent) = agent {
            self.check_path(variant, load, &agent)?;
            let (status, log, _) = agent.terminate()?;
            ensure!(status.success(), "the agent ended with {status}:\n{log}");
        }
        Ok(measured)
    }

    fn entry(&self, variant: Variant, client: &Pod) -> Option<PodEntry> {
        match variant {
            Variant::NoMesh => None,
            Variant::Unenrolled => Some(PodEntry::new(
                "bystander",
                self.bystander.clone(),
                &["onAgentDown: open"],
            )),
            Variant::Agent => Some(PodEntry::of(
                client,
                &["capture: {outbound: true, dns: true}"],
            )),
            Variant::Iptables => Some(PodEntry::of(client, &["capture: {outbound: false}"])),
            Variant::InboundBind | Variant::InboundSkLookup => {
                let steering = if variant == Variant::InboundBind {
                    "capture: {outbound: false, inbound: true, inboundSteering: bind}"
                } else {
                    "capture: {outbound: false, inbound: true, inboundSteering: skLookup}"
                };
                Some(PodEntry::of(self.captured.get(&variant)?, &[steering]))
            }
        }
    }

    /// The client of a variant.
    pub fn client(&self, variant: Variant) -> Result<&Pod> {
        self.clients
            .get(&variant)
            .with_context(|| format!("no client for {}", variant.name()))
    }

    fn start_agent(&self, entry: &PodEntry) -> Result<Agent> {
        let configuration = lab::configuration(&self.lab, std::slice::from_ref(entry));
        Agent::start(&self.lab, &self.binary, &configuration)
    }

    /// A measurement of the wrong path would be worse than none.
    fn check_path(&self, variant: Variant, load: Workload, agent: &Agent) -> Result<()> {
        let counters = lab::counters(&self.lab.pins())?;
        let counter = |wanted: &str| {
            let found = counters.iter().find(|(name, _)| *name == wanted);
            found.map_or(0, |(_, value)| *value)
        };
        let redirected = counter("redirected");
        let (inbound, rewritten) = (counter("inboundAccepted"), counter("bindsRewritten"));
        let forwarded = agent.status()?["connections"]["total"]
            .as_u64()
            .context("the agent's status has no connections.total")?;
        let datagrams = counter("datagramsRedirected");
        let as_named = match variant {
            Variant::NoMesh => true,
            Variant::Agent if load.is_dns() => datagrams > 0,
            Variant::Unenrolled => redirected + datagrams == 0 && forwarded == 0,
            Variant::Agent => redirected > 0 && forwarded > 0,
            Variant::Iptables => redirected == 0 && forwarded > 0,
            Variant::InboundBind => inbound > 0 && rewritten > 0 && forwarded > 0,
            Variant::InboundSkLookup => inbound > 0 && rewritten == 0 && forwarded > 0,
        };
        ensure!(
            as_named,
            "not the path to measure: {redirected} connections and {datagrams} datagrams redirected by \
             the kernel half, {inbound} inbound, \
             {rewritten} binds rewritten, {forwarded} forwarded by the agent"
        );
        Ok(())
    }

    /// Removes everything.
    pub fn close(self) -> Result<()> {
        let Self {
            lab,
            _servers: servers,
            ..
        } = self;
        drop(servers);
        lab.close()
    }
}

pub fn run_in(pod: &Pod, words: &[&str]) -> Result<()> {
    let output = pod
        .command(words[0])
        .args(&words[1..])
        .output()
        .with_context(|| format!("cannot start {}", words[0]))?;
    ensure!(
        output.status.success(),
        "`{}` failed: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Starts a server and waits until `ready` succeeds.
pub fn start_server(mut command: Command, mut ready: impl FnMut() -> bool) -> Result<Running> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let mut running = interrupt::spawn(&mut command)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready() {
        ensure!(
            running.poll()?.is_none(),
            "{} has ended",
            command.get_program().display()
        );
        ensure!(
            Instant::now() < deadline,
            "a server does not listen after 10 s"
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(running)
}
