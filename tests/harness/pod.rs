//! Pods and the networks that join them.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::node::Shared;
use crate::process::{Finished, Process};
use crate::programs::{program, python};

/// How long [`Pod::run`] lets a program run.
const RUN_BOUND: Duration = Duration::from_mins(1);

/// The leaf cgroup of ordinary pod processes.
const PODS: &str = "pods";

/// A bridge in a namespace of its own.
pub struct Network {
    shared: Arc<Shared>,
    netns: Arc<Netns>,
}

impl Network {
    /// Makes the network `name` of a node.
    pub fn create(shared: &Arc<Shared>, name: &str) -> Result<Self> {
        let netns = Netns::create(&format!("{}-{name}", shared.id))?;
        netns.batch("link add br0 type bridge stp_state 0 forward_delay 0\nlink set br0 up\n")?;
        Ok(Self {
            shared: Arc::clone(shared),
            netns: Arc::new(netns),
        })
    }

    /// A pod on this network. Addresses without prefix length: /24 and /64.
    pub fn pod(&self, name: &str, v4: &str, v6: Option<&str>) -> Result<Pod> {
        let netns = Netns::create(&format!("{}-{name}", self.shared.id))?;
        // The last number of the address names the port of the bridge: unique where addresses are.
        let port = u32::from(
            v4.parse::<Ipv4Addr>()
                .with_context(|| format!("{v4} is no IPv4 address"))?,
        );
        let mut commands = format!(
            "link add p{port:08x} type veth peer name eth0 netns {}\nlink set p{port:08x} master br0 up\n",
            netns.name()
        );
        self.netns.batch(&commands)?;
        commands = format!("addr add {v4}/24 dev eth0\nlink set eth0 up\n");
        if let Some(v6) = v6 {
            writeln!(commands, "addr add {v6}/64 dev eth0 nodad")?;
        }
        netns.batch(&commands)?;
        Ok(Pod {
            name: name.to_owned(),
            address: v4.to_owned(),
            address6: v6.map(str::to_owned),
            netns,
            port: format!("p{port:08x}"),
            network: Arc::clone(&self.netns),
            shared: Arc::clone(&self.shared),
        })
    }
}

/// A pod: a network namespace with an address; its processes run in the node's cgroup.
pub struct Pod {
    name: String,
    address: String,
    address6: Option<String>,
    netns: Netns,
    port: String,
    network: Arc<Netns>,
    shared: Arc<Shared>,
}

impl Pod {
    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its IPv6 address.
    pub fn address6(&self) -> Result<&str> {
        self.address6
            .as_deref()
            .with_context(|| format!("pod {} has no IPv6 address", self.name))
    }

    /// Where its namespace is bound.
    pub fn netns_path(&self) -> PathBuf {
        self.netns.path()
    }

    /// A path for a file of this pod, removed with the node.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.shared.dir.join(format!("{}-{name}", self.name))
    }

    /// Runs iproute2 commands, one a line, in the pod.
    pub fn ip(&self, commands: &str) -> Result<()> {
        self.netns.batch(commands)
    }

    /// Sets a sysctl of the pod's namespace, as in `net/ipv4/tcp_fastopen`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(["sh", "-c", &format!("echo {value} > /proc/sys/{key}")])?
            .success()
            .map(drop)
    }

    /// Starts a program in the pod.
    pub fn spawn<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Process> {
        self.spawn_in(PODS, argv)
    }

    /// Starts a program in the pod, in the leaf cgroup `leaf` of the node.
    pub fn spawn_in<S: AsRef<OsStr>>(
        &self,
        leaf: &str,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        let path = self.netns_path();
        let netns = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        self.shared.spawn(leaf, Some(netns.into()), argv)
    }

    /// Runs a program in the pod to its end.
    pub fn run<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Finished> {
        self.spawn(argv)?.finish(RUN_BOUND)
    }

    /// Starts a Python script of `tests/programs` in the pod.
    pub fn spawn_python<S: AsRef<OsStr>>(
        &self,
        script: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        self.spawn(python_argv(script, args))
    }

    /// Runs a Python script of `tests/programs` to its end.
    pub fn python<S: AsRef<OsStr>>(
        &self,
        script: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished> {
        self.spawn_python(script, args)?.finish(RUN_BOUND)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // As a CNI plugin does: a namespace lives on while anybody has a socket in it, its link must not.
        // The link is gone already when the test deleted the namespace itself.
        let _ = self.network.batch(&format!("link del {}", self.port));
    }
}

/// The command line that runs a Python script of `tests/programs`.
pub fn python_argv<S: AsRef<OsStr>>(
    script: &str,
    args: impl IntoIterator<Item = S>,
) -> Vec<std::ffi::OsString> {
    let mut argv = vec![python().into(), program(script).into_os_string()];
    argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
    argv
}

impl Shared {
    /// Starts a program in a leaf cgroup and, if given, a network namespace.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        leaf: &str,
        netns: Option<OwnedFd>,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        let mut argv = argv.into_iter();
        let program = argv.next().context("an empty command line")?;
        let mut command = Command::new(&program);
        command.args(argv);
        let name = Path::new(&program)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Process::start(
            command,
            &self.dir,
            &self.label(&name),
            self.cgroup.leaf(leaf)?,
            netns,
        )
    }
}
