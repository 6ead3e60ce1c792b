//! Unusual ways to open a connection behave as they do without the agent: each test runs its case
//! with the agent off, then on, and expects the same.

use anyhow::{Result, ensure};
use mesh_tests::scenario;
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, OTHER, OTHER6, SERVER, SERVER6, at};
use crate::stage::{EXCLUDED, Stage, off_and_on};

const IDENTITY: u16 = 7001;
const ONCE: u16 = 7002;
const ECHO: u16 = 7003;
const PORTS: &[&str] = &["7001=identity", "7002=once", "7003=echo"];

/// Runs a case of `connecting.py` in the client.
fn case(stage: &Stage, args: &[&str]) -> Result<Value> {
    stage.client.python("connecting.py", args)?.json()
}

/// Checks that `outcome` is a connection to `server` at `host`, seen by it as the client's own address.
fn ensure_reached(outcome: &Value, server: &str, host: &str, port: u16) -> Result<()> {
    ensure!(
        outcome["server"] == server,
        "reached the wrong server: {outcome}"
    );
    ensure!(
        outcome["peer"] == at(host, port),
        "getpeername shows another address: {outcome}"
    );
    let client = if host.contains(':') {
        format!("[{CLIENT6}]:")
    } else {
        format!("{CLIENT}:")
    };
    ensure!(
        outcome["seen"]
            .as_str()
            .unwrap_or_default()
            .starts_with(&client),
        "the server saw another: {outcome}"
    );
    Ok(())
}

#[test]
fn a_plain_connect_shows_the_peer_it_asked_for_over_v4_and_v6() {
    scenario(|node| {
        off_and_on(node, PORTS, "redirected", 2, |stage| {
            ensure_reached(
                &case(stage, &["plain", &at(SERVER, IDENTITY)])?,
                "server",
                SERVER,
                IDENTITY,
            )?;
            ensure_reached(
                &case(stage, &["plain", &at(OTHER6, IDENTITY)])?,
                "other",
                OTHER6,
                IDENTITY,
            )?;
            Ok(())
        })
    });
}

#[test]
fn an_ipv6_socket_to_a_v4_mapped_address_is_captured_as_v4() {
    scenario(|node| {
        off_and_on(node, PORTS, "redirected", 1, |stage| {
            let outcome = case(stage, &["mapped", &at(SERVER, IDENTITY)])?;
            ensure_reached(&outcome, "server", SERVER, IDENTITY)?;
            ensure!(
                outcome["raw_peer"] == format!("::ffff:{SERVER}"),
                "{outcome}"
            );
            Ok(())
        })
    });
}

#[test]
fn a_socket_can_be_used_again_after_a_failed_connect() {
    scenario(|node| {
        off_and_on(node, PORTS, "redirected", 2, |stage| {
            for refuses in ["127.0.0.1:1".to_owned(), at(SERVER, EXCLUDED)] {
                let outcome = case(stage, &["after-failed", &refuses, &at(OTHER, IDENTITY)])?;
                ensure!(outcome["first"] == "ECONNREFUSED", "{outcome}");
                ensure_reached(&outcome, "other", OTHER, IDENTITY)?;
            }
            Ok(())
        })
    });
}

#[test]
fn a_non_blocking_connect_reports_progress_and_success() {
    scenario(|node| {
        off_and_on(node, PORTS, "redirected", 2, |stage| {
            for (server, host) in [("server", SERVER), ("other", OTHER6)] {
                let outcome = case(stage, &["non-blocking", &at(host, IDENTITY)])?;
                ensure!(
                    outcome["started"] == "EINPROGRESS" || outcome["started"] == 0,
                    "{outcome}"
                );
                ensure!(
                    outcome["ready"] == true && outcome["pending"] == 0,
                    "{outcome}"
                );
                // The first call after success may say 0 or EISCONN; both mean connected.
                ensure!(
                    outcome["again"] == 0 || outcome["again"] == "EISCONN",
                    "{outcome}"
                );
                ensure_reached(&outcome, server, host, IDENTITY)?;
            }
            Ok(())
        })
    });
}

#[test]
fn tcp_fast_open_delivers_its_data_once() {
    scenario(|node| {
        off_and_on(node, PORTS, "redirected", 8, |stage| {
            for way in ["fast-open", "fast-open-connect"] {
                for host in [SERVER, SERVER6] {
                    let outcome = case(stage, &[way, &at(host, ECHO), "hello from the SYN"])?;
                    for answer in 0..2 {
                        ensure!(
                            outcome["answers"][answer] == "hello from the SYN",
                            "{way} to {host}: {outcome}"
                        );
                    }
                    ensure!(
                        outcome["peer"] == at(host, ECHO),
                        "{way} to {host}: {outcome}"
                    );
                }
            }
            Ok(())
        })
    });
}

#[test]
fn a_socket_bound_before_connect_keeps_its_source_port() {
    scenario(|node| {
        off_and_on(node, PORTS, "redirected", 3, |stage| {
            // Linux finds no route for the last ACK from a pod's own IPv6 address to ::1 (also where no
            // agent is), so a closed end lingers. This lets it go in a second, not in two minutes.
            stage.client.sysctl("net/ipv4/tcp_orphan_retries", "1")?;
            for (source, server, host) in [
                (CLIENT, "server", SERVER),
                (CLIENT6, "other", OTHER6),
                ("0.0.0.0", "other", OTHER),
            ] {
                let outcome = case(stage, &["bound", &at(source, 40_001), &at(host, IDENTITY)])?;
                ensure_reached(&outcome, server, host, IDENTITY)?;
                ensure!(
                    outcome["local"]
                        .as_str()
                        .unwrap_or_default()
                        .ends_with(":40001"),
                    "{outcome}"
                );
            }
            Ok(())
        })
    });
}

#[test]
fn af_unspec_disconnects_and_the_next_connect_goes_elsewhere() {
    scenario(|node| {
        off_and_on(node, PORTS, "redirected", 2, |stage| {
            let outcome = case(
                stage,
                &["unspec", &at(SERVER, IDENTITY), &at(OTHER, IDENTITY)],
            )?;
            ensure_reached(&outcome["before"], "server", SERVER, IDENTITY)?;
            ensure!(outcome["gone"] == "ENOTCONN", "{outcome}");
            ensure_reached(&outcome["after"], "other", OTHER, IDENTITY)?;
            Ok(())
        })
    });
}

#[test]
fn one_four_tuple_used_again_and_again_never_reaches_the_wrong_server() {
    scenario(|node| {
        // Connects that had to be tried again were redirected twice but established once.
        off_and_on(node, PORTS, "established", 600, |stage| {
            let (server, other) = (
                format!("server={}", at(SERVER, ONCE)),
                format!("other={}", at(OTHER, ONCE)),
            );
            for targets in [&[&*server, &*other][..], &[&*server]] {
                let source = at(CLIENT, if targets.len() > 1 { 40_002 } else { 40_003 });
                let outcome = case(
                    stage,
                    &[&["same-four-tuple", &*source, "300"], targets].concat(),
                )?;
                ensure!(
                    outcome["wrong"].as_array().is_some_and(Vec::is_empty),
                    "{outcome}"
                );
                ensure!(
                    outcome["errors"]
                        .as_object()
                        .is_some_and(serde_json::Map::is_empty),
                    "{outcome}"
                );
                ensure!(outcome["late"].as_u64() < Some(30), "{outcome}");
            }
            Ok(())
        })
    });
}

#[test]
fn one_source_port_serves_two_servers_at_once() {
    scenario(|node| {
        off_and_on(node, PORTS, "redirected", 2, |stage| {
            let outcome = case(
                stage,
                &[
                    "one-port-two-servers",
                    &at(CLIENT, 40_004),
                    &at(SERVER, IDENTITY),
                    &at(OTHER, IDENTITY),
                ],
            )?;
            ensure_reached(&outcome["outcomes"][0], "server", SERVER, IDENTITY)?;
            ensure_reached(&outcome["outcomes"][1], "other", OTHER, IDENTITY)?;
            for number in 0..2 {
                ensure!(
                    outcome["outcomes"][number]["local"] == at(CLIENT, 40_004),
                    "{outcome}"
                );
            }
            Ok(())
        })
    });
}

#[test]
fn a_socket_bound_to_a_device_still_connects() {
    scenario(|node| {
        // Loopback cannot be reached through eth0, so such a connect goes direct.
        off_and_on(node, PORTS, "boundToDevice", 1, |stage| {
            let outcome = case(stage, &["to-device", "eth0", &at(SERVER, IDENTITY)])?;
            ensure_reached(&outcome, "server", SERVER, IDENTITY)?;
            let seconds = outcome["seconds"].as_f64().unwrap_or(f64::MAX);
            ensure!(seconds < 0.9, "{outcome}");
            Ok(())
        })
    });
}
