//! `SO_ORIGINAL_DST` is answered to whoever accepted a redirected connection, and nothing else is.

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, Pod, Process, scenario};
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, SERVER, SERVER6, at};

const PROXY_PORT: u16 = 15001;

/// What is answered only where a connection was redirected.
const ANSWERED: [&str; 3] = ["v4", "v4 with room", "v6"];

/// A client whose own proxy is `original_dst.py`, listening on `bind`.
fn stage(node: &Node, bind: &str) -> Result<(Pod, Process)> {
    let client = node.pod("client", CLIENT, Some(CLIENT6))?;
    let argv = [
        mesh_tests::python().into(),
        mesh_tests::program("original_dst.py"),
        bind.into(),
    ];
    let proxy = client.spawn_in("proxy", argv)?.listening(PROXY_PORT)?;
    Ok((client, proxy))
}

fn external(node: &Node) -> Result<String> {
    Ok(format!(
        "proxy: {{external: {{port: {PROXY_PORT}, cgroup: {}}}}}",
        node.cgroup_leaf("proxy")?.display()
    ))
}

fn line(client: &Pod, target: &str) -> Result<Value> {
    client.python("connecting.py", ["line", target])?.json()
}

/// `struct sockaddr_in` of `10.77.0.10:80` as hex: family in host order, the rest in network order.
fn sockaddr_in() -> String {
    format!(
        "{}0050{}{}",
        hex(&2_u16.to_ne_bytes()),
        hex(&[10, 77, 0, 10]),
        "00".repeat(8)
    )
}

/// `struct sockaddr_in6` of `[fd77::10]:80`.
fn sockaddr_in6() -> String {
    let address = format!("fd77{}0010", "0000".repeat(6));
    format!(
        "{}0050{}{address}{}",
        hex(&10_u16.to_ne_bytes()),
        "00".repeat(4),
        "00".repeat(4)
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn ensure_same_except(left: &Value, right: &Value, except: &[&str]) -> Result<()> {
    for (name, answer) in left.as_object().context("no answers")? {
        if !except.contains(&name.as_str()) {
            ensure!(
                right[name] == *answer,
                "{name} was {answer}, is {}",
                right[name]
            );
        }
    }
    Ok(())
}

#[test]
fn a_proxy_learns_the_original_destination_and_other_options_stay_as_they_were() {
    scenario(|node| {
        let (client, _proxy) = stage(node, &PROXY_PORT.to_string())?;
        let off4 = line(&client, &at("127.0.0.1", PROXY_PORT))?;
        let off6 = line(&client, &at("::1", PROXY_PORT))?;
        for name in ANSWERED {
            ensure!(
                off4[name].as_str().is_some_and(|a| a.starts_with('E')),
                "answered without us: {off4}"
            );
        }
        let agent = node.agent(&node.config().pod_with(&client, &[&external(node)?]))?;

        let on4 = line(&client, &at(SERVER, 80))?;
        ensure!(
            on4["v4"] == sockaddr_in() && on4["v4 with room"] == sockaddr_in(),
            "{on4}"
        );
        ensure_same_except(&off4, &on4, &["v4", "v4 with room"])
            .context("of an IPv4 connection")?;

        let on6 = line(&client, &at(SERVER6, 80))?;
        ensure!(on6["v6"] == sockaddr_in6(), "{on6}");
        ensure_same_except(&off6, &on6, &["v6"]).context("of an IPv6 connection")?;

        // Not redirected, so the kernel's own answers.
        let direct = line(&client, &at("127.0.0.1", PROXY_PORT))?;
        ensure_same_except(&off4, &direct, &[])
            .context("of a connection that was not redirected")?;
        agent.wait_idle()
    });
}

#[test]
fn a_proxy_that_listens_on_127_0_0_1_only_is_found_too() {
    scenario(|node| {
        let (client, _proxy) = stage(node, &format!("127.0.0.1:{PROXY_PORT}"))?;
        let agent = node.agent(&node.config().pod_with(&client, &[&external(node)?]))?;
        let on4 = line(&client, &at(SERVER, 80))?;
        ensure!(on4["v4"] == sockaddr_in(), "{on4}");
        agent.wait_idle()
    });
}
