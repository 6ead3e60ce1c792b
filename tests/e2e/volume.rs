//! Thousands of connections from three pods whose addresses and ports overlap: every byte right, no
//! wrong destination, nothing left behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Agent, Node, Pod, Process, Scenario, say, wait_until};
use serde_json::Value;

use crate::peers::{CLIENT, OTHER, SERVER};

const COLOURS: [&str; 3] = ["red", "green", "blue"];
const PORTS: [&str; 2] = ["8001", "8002"];
const BOUND: Duration = Duration::from_mins(3);

/// One of three networks that use the same addresses.
struct Tenant {
    client: Pod,
    targets: Vec<String>,
    _servers: Vec<(Pod, Process)>,
}

impl Tenant {
    fn new(node: &Node, colour: &str) -> Result<Self> {
        let network = node.network(colour)?;
        let client = network.pod(&format!("{colour}-client"), CLIENT, None)?;
        let (mut servers, mut targets) = (Vec::new(), Vec::new());
        for (number, address) in [SERVER, OTHER].into_iter().enumerate() {
            let name = format!("{colour}-{number}");
            let pod = network.pod(&name, address, None)?;
            let process = pod.spawn_python("checksum_server.py", [&name, PORTS[0], PORTS[1]])?;
            servers.push((pod, process.listening(8001)?.listening(8002)?));
            targets.extend(PORTS.map(|port| format!("{name}={address}:{port}")));
        }
        Ok(Self {
            client,
            targets,
            _servers: servers,
        })
    }

    fn start(&self, mode: &str, count: u64, largest: u64) -> Result<Process> {
        let mut args = vec![mode.to_owned(), count.to_string(), largest.to_string()];
        args.extend(self.targets.iter().cloned());
        self.client.spawn_python("checksum_client.py", args)
    }
}

fn ensure_all_right(client: Process, count: u64) -> Result<Value> {
    let outcome = client.finish(BOUND)?.json()?;
    ensure!(
        outcome["connections"] == count && outcome["failed"] == 0,
        "{outcome}"
    );
    Ok(outcome)
}

/// Sockets of the pod's namespace that still have an entry in `sk_storage_map`, listeners aside: those
/// are the agent's own and keep theirs as long as it runs.
fn storage_entries(agent: &Agent, pod: &Pod) -> Result<u64> {
    let pin = agent.pin("sk_storage_map");
    let counts = pod.python("sk_storage.py", [&pin])?.json()?;
    let counts = counts.as_object().context("no counts")?;
    Ok(counts
        .iter()
        .filter(|(state, _)| *state != "LISTEN")
        .filter_map(|(_, count)| count.as_u64())
        .sum())
}

#[test]
fn thousands_of_connections_from_three_pods_with_the_same_addresses_reach_the_right_server_unchanged()
 {
    Scenario::default()
        .bound(Duration::from_mins(5))
        .run(|node| {
            let tenants: Vec<Tenant> = COLOURS
                .iter()
                .map(|colour| Tenant::new(node, colour))
                .collect::<Result<_>>()?;
            let config = tenants
                .iter()
                .fold(node.config(), |config, tenant| config.pod(&tenant.client));
            let agent = node.agent(&config)?;
            // Each thread of the agent keeps a pipe at hand, of two descriptors.
            let kept = 2 * std::thread::available_parallelism()?.get();
            let files = agent.open_files()? + kept;
            let mut total = 0;
            for (mode, count, largest) in [
                ("sequential", 10_000, 64 << 10),
                ("concurrent", 2_000, 256 << 10),
                ("single", 1, 256 << 20),
            ] {
                let clients: Vec<Process> = tenants
                    .iter()
                    .map(|tenant| tenant.start(mode, count, largest))
                    .collect::<Result<_>>()?;
                if mode == "concurrent" {
                    // All three at once, as far as the map tells.
                    wait_until(BOUND, "many connections in origin_dst_map", || {
                        Ok(agent.status()?["connections"]["open"].as_u64() > Some(2_000))
                    })?;
                    let entries = storage_entries(&agent, &tenants[0].client)?;
                    ensure!(
                        entries > 0,
                        "sk_storage.py sees no entries while connections are open"
                    );
                }
                for client in clients {
                    let outcome =
                        ensure_all_right(client, count).with_context(|| mode.to_owned())?;
                    say(&format!("{mode}: {outcome}"));
                    total += count;
                }
            }
            ensure!(agent.counter("redirected")? == total, "{}", agent.status()?);
            agent.wait_idle()?;
            for tenant in &tenants {
                let left = storage_entries(&agent, &tenant.client)?;
                ensure!(left == 0, "{left} entries are left in sk_storage_map");
            }
            wait_until(
                Duration::from_secs(10),
                "the agent to close its files",
                || Ok(agent.open_files()? <= files),
            )
            .with_context(|| format!("at most {files}, {:?} now", agent.open_files()))
        });
}
