//! Bring your own proxy: the agent only captures, and a proxy that knows nothing of it forwards.
//!
//! `HAProxy` asks `SO_ORIGINAL_DST` because it is built for iptables REDIRECT and TPROXY. Envoy runs
//! too where it is installed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_tests::{BindMount, Node, Pod, Process, python, say, scenario, wait_until};
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, OTHER, SERVER, SERVER6, at, behaviours};

const PROXY_PORT: u16 = 15001;

/// The server named `0.0.0.0:0` stands for the original destination.
const HAPROXY: &str = "
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 2s
    timeout client 30s
    timeout server 30s
frontend captured
    bind BIND
    default_backend original
backend original
    server destination 0.0.0.0:0
";

fn haproxy(pod: &Pod, bind: &str) -> Result<Process> {
    let config = pod.scratch("haproxy.cfg");
    fs::write(&config, HAPROXY.replace("BIND", bind))?;
    pod.spawn_in("proxy", ["haproxy", "-db", "-f", &config.to_string_lossy()])?
        .listening(PROXY_PORT)
}

fn external(node: &Node) -> Result<String> {
    let cgroup = node.cgroup_leaf("proxy")?;
    Ok(format!(
        "proxy: {{external: {{port: {PROXY_PORT}, cgroup: {}}}}}",
        cgroup.display()
    ))
}

/// Checks that apps in `client` reach whom they ask for, by way of the proxy and with their own pod's address.
fn forwards(
    node: &Node,
    start: impl Fn(&Pod) -> Result<Process>,
    hosts: &[(&str, &str)],
) -> Result<()> {
    let client = node.pod("client", CLIENT, Some(CLIENT6))?;
    let (server, other) = (
        node.pod("server", SERVER, Some(SERVER6))?,
        node.pod("other", OTHER, None)?,
    );
    let ports = ["7001=identity", "7003=echo"];
    let _servers = (behaviours(&server, &ports)?, behaviours(&other, &ports)?);
    let mut proxy = start(&client)?;
    let agent = node.agent(&node.config().pod_with(&client, &[&external(node)?]))?;
    for (name, host) in hosts {
        let outcome = client
            .python("connecting.py", ["plain", &at(host, 7001)])?
            .json()?;
        ensure!(
            outcome["server"] == *name && outcome["peer"] == at(host, 7001),
            "{outcome}"
        );
        // It went through the proxy, so the server sees the pod's address but another port.
        ensure!(
            outcome["seen"] != outcome["local"],
            "not through the proxy: {outcome}"
        );
        let seen = outcome["seen"].as_str().unwrap_or_default();
        ensure!(
            seen.starts_with(CLIENT) || seen.starts_with(&format!("[{CLIENT6}]")),
            "{outcome}"
        );
    }
    let echo = client
        .python("ending.py", ["both-ways", &at(SERVER, 7003), "10000000"])?
        .json()?;
    ensure!(echo["right"] == true, "{echo}");
    let count = hosts.len() as u64 + 1;
    let status = agent.status()?;
    ensure!(status["counters"]["redirected"] == count, "{status}");
    ensure!(
        status["counters"]["ownSocket"].as_u64() >= Some(count),
        "{status}"
    );
    ensure!(
        status["counters"]["originalDstAnswered"].as_u64() >= Some(count),
        "{status}"
    );

    // With the proxy gone the pod's choice holds, as it does for the agent's own.
    proxy.kill()?;
    let outcome = client
        .python("connecting.py", ["plain", &at(SERVER, 7001)])?
        .json()?;
    ensure!(outcome["seen"] == outcome["local"], "not direct: {outcome}");
    ensure!(agent.counter("failedOpen")? == 1, "{}", agent.status()?);

    agent.wait_idle()
}

#[test]
fn an_unmodified_haproxy_forwards_what_is_captured() {
    scenario(|node| {
        forwards(
            node,
            |pod| haproxy(pod, "0.0.0.0:15001"),
            &[("server", SERVER), ("other", OTHER)],
        )
    });
}

#[test]
fn an_unmodified_haproxy_on_127_0_0_1_only_does_too() {
    scenario(|node| {
        forwards(
            node,
            |pod| haproxy(pod, "127.0.0.1:15001"),
            &[("server", SERVER), ("other", OTHER)],
        )
    });
}

/// The cluster type that connects to where the listener filter says.
const ENVOY: &str = r#"
static_resources:
  listeners:
  - name: captured
    address: {socket_address: {address: "::", port_value: 15001, ipv4_compat: true}}
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: captured
          cluster: original
  clusters:
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: 2s
"#;

#[test]
fn an_unmodified_envoy_forwards_what_is_captured_over_v4_and_v6() {
    let envoy = std::env::var("MESH_ENVOY").unwrap_or_else(|_| "envoy".to_owned());
    let found =
        Path::new(&envoy).is_file() || Command::new(&envoy).arg("--version").output().is_ok();
    if !found {
        say("skipped: no envoy in PATH or MESH_ENVOY; HAProxy plays the part");
        return;
    }
    scenario(|node| {
        let start = |pod: &Pod| {
            let config = pod.scratch("envoy.yaml");
            fs::write(&config, ENVOY)?;
            let argv = [
                &*envoy,
                "-c",
                &config.to_string_lossy(),
                "--use-dynamic-base-id",
                "--concurrency",
                "1",
            ];
            pod.spawn_in("proxy", argv)?.listening(PROXY_PORT)
        };
        forwards(
            node,
            start,
            &[("server", SERVER), ("other", OTHER), ("server", SERVER6)],
        )
    });
}

#[test]
fn its_cgroup_may_be_named_below_a_bind_mount() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let level_of = |cgroup: &Path| -> Result<Value> {
            let line = format!(
                "proxy: {{external: {{port: {PROXY_PORT}, cgroup: {}}}}}",
                cgroup.display()
            );
            let agent = node.agent(&node.config().pod_with(&client, &[&line]))?;
            let pods = agent.map_dump("pods")?;
            agent.terminate(Duration::from_secs(15))?;
            Ok(pods[0]["value"]["proxy_level"].clone())
        };
        let cgroup = node.cgroup_leaf("proxy")?;
        let bound = node.dir().join("bound here");
        fs::create_dir(&bound)?;
        let _mount = BindMount::over(node.cgroup(), &bound)?;
        ensure!(level_of(&cgroup)? == 2);
        ensure!(level_of(&bound.join("proxy"))? == 2);
        Ok(())
    });
}

#[test]
fn an_absent_proxy_is_told_at_once_and_then_once_a_second() {
    scenario(|node| {
        const CONNECTS: u64 = 300;
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &["7001=identity"])?;
        let agent = node.agent(&node.config().pod_with(&client, &[&external(node)?]))?;
        let script = format!(
            "import socket\nfor _ in range({CONNECTS}): socket.create_connection(('{SERVER}', 7001)).close()"
        );
        let started = Instant::now();
        client
            .spawn([python(), "-c", &script])?
            .finish(Duration::from_secs(20))?
            .success()?;
        ensure!(agent.counter("failedOpen")? == CONNECTS);
        let mut told = Vec::new();
        wait_until(Duration::from_secs(5), "every connect to be told", || {
            told = agent
                .log()?
                .lines()
                .filter(|line| line.contains("went direct"))
                .map(str::to_owned)
                .collect();
            let told: u64 = told.iter().filter_map(|line| connects_in(line)).sum();
            Ok(told == CONNECTS)
        })
        .with_context(|| format!("{told:#?}"))?;
        let most = usize::try_from(started.elapsed().as_secs())? + 2;
        ensure!(told.len() <= most, "{} lines: {told:#?}", told.len());
        Ok(())
    });
}

/// How many connects a line of the log tells of.
fn connects_in(line: &str) -> Option<u64> {
    match line.split_once(" more connects") {
        Some((before, _)) => before.rsplit(' ').next()?.parse().ok(),
        None => Some(1),
    }
}
