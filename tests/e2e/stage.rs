//! The same case with the agent off, then on: what an app sees must not change.

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, Pod, Process};

use crate::peers::{CLIENT, CLIENT6, OTHER, OTHER6, SERVER, SERVER6, behaviours};

/// Excluded from capture, and nobody listens there.
pub const EXCLUDED: u16 = 7999;

/// A client and two servers with the same behaviours.
pub struct Stage {
    pub client: Pod,
    pub server: Process,
    _other: Process,
    _pods: [Pod; 2],
}

impl Stage {
    /// `ports` as in `7001=identity`.
    pub fn new(node: &Node, ports: &[&str]) -> Result<Self> {
        let client = node.pod("client", CLIENT, Some(CLIENT6))?;
        let pods = [
            node.pod("server", SERVER, Some(SERVER6))?,
            node.pod("other", OTHER, Some(OTHER6))?,
        ];
        for pod in &pods {
            pod.sysctl("net/ipv4/tcp_fastopen", "3")?;
        }
        let (server, other) = (behaviours(&pods[0], ports)?, behaviours(&pods[1], ports)?);
        Ok(Self {
            client,
            server,
            _other: other,
            _pods: pods,
        })
    }
}

/// Runs `check` with the agent off, then on; the second time `count` connects must have been counted
/// as `counter`, and nothing may be left of them.
pub fn off_and_on(
    node: &Node,
    ports: &[&str],
    counter: &str,
    count: u64,
    check: impl Fn(&Stage) -> Result<()>,
) -> Result<()> {
    let stage = Stage::new(node, ports)?;
    check(&stage).context("with the agent off")?;
    let excluded = format!("excludePorts: [{EXCLUDED}]");
    let agent = node.agent(&node.config().pod_with(&stage.client, &[&excluded]))?;
    check(&stage).context("with the agent on")?;
    let counted = agent.counter(counter)?;
    ensure!(
        counted == count,
        "{counted} connects count as {counter}, not {count}: {}",
        agent.status()?
    );
    agent.wait_idle()
}
