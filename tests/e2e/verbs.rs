//! Looking at the agent: every verb has a table for people and JSON for programs.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Agent, Node, agent_binary, scenario, wait_until};
use serde_json::Value;

use crate::peers::{CLIENT, SERVER, at, behaviours};

#[test]
fn status_pods_and_connections_show_an_open_connection() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &["7001=trickle,30"])?;
        let agent = node.agent(&node.config().pod(&client))?;
        let mut download = client.spawn_python("ending.py", ["slow-down", &at(SERVER, 7001)])?;
        agent.wait_captured()?;

        let status = agent.status()?;
        ensure!(
            status["pid"] == agent.pid() && status["ready"] == true,
            "{status}"
        );
        ensure!(
            status["pods"]["configured"] == 1 && status["pods"]["enrolled"] == 1,
            "{status}"
        );
        ensure!(
            status["connections"]["open"] == 1 && status["counters"]["redirected"] == 1,
            "{status}"
        );

        let pods = agent.json("pods")?;
        ensure!(
            pods[0]["name"] == "client" && pods[0]["state"] == "enrolled",
            "{pods}"
        );
        ensure!(
            pods[0]["connections"] == 1 && pods[0]["netnsCookie"].as_u64() > Some(0),
            "{pods}"
        );

        let connections = agent.json("connections")?;
        let connection = &connections[0];
        ensure!(
            connection["originalDestination"] == at(SERVER, 7001),
            "{connections}"
        );
        ensure!(connection["process"] == download.pid(), "{connections}");
        let client = connection["client"].as_str().unwrap_or_default();
        ensure!(client.parse::<SocketAddr>().is_ok(), "{connections}");
        ensure!(
            connection["bytesReceived"].as_u64() > Some(0),
            "{connections}"
        );

        for (verb, word) in [
            ("status", "redirected"),
            ("pods", "client"),
            ("connections", &*at(SERVER, 7001)),
        ] {
            let table = agent.verb([verb])?;
            ensure!(
                table.contains(word) && !table.trim_start().starts_with(['{', '[']),
                "{verb}:\n{table}"
            );
        }
        download.kill()?;
        agent.wait_idle()
    });
}

#[test]
fn a_verb_without_an_agent_says_so_in_one_line() {
    scenario(|node| {
        let socket = node
            .dir()
            .join("nobody.sock")
            .to_string_lossy()
            .into_owned();
        for verb in ["status", "pods", "connections", "latency", "trace"] {
            let finished = node.agent_verb([verb, "--admin-socket", &socket])?;
            ensure!(!finished.status.success(), "{finished:?}");
            ensure!(
                finished.stderr.lines().count() == 1 && finished.stderr.contains("nobody.sock"),
                "{finished:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn validate_accepts_a_good_file_and_names_the_line_of_a_bad_one() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let (good, bad) = (node.dir().join("good.yaml"), node.dir().join("bad.yaml"));
        fs::write(&good, node.config().pod(&pod).to_yaml())?;
        fs::write(
            &bad,
            node.config()
                .pod_with(&pod, &["excludePorts: [0x]"])
                .to_yaml(),
        )?;
        node.agent_verb(["validate", &good.to_string_lossy()])?
            .success()?;
        let json = node
            .agent_verb(["validate", &good.to_string_lossy(), "--output", "json"])?
            .json()?;
        ensure!(json["valid"] == true, "{json}");
        let finished = node.agent_verb(["validate", &bad.to_string_lossy()])?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        ensure!(
            !finished.status.success()
                && said.contains("excludePorts")
                && said.contains("bad.yaml:9"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn schema_is_a_json_schema_that_knows_the_fields() {
    scenario(|node| {
        let schema = node.agent_verb(["schema"])?.json()?;
        let text = schema.to_string();
        for field in [
            "excludeCidrs",
            "onAgentDown",
            "drainTimeout",
            "maxConnections",
        ] {
            ensure!(text.contains(field), "{field} is not in the schema");
        }
        ensure!(schema["$schema"].is_string(), "{schema}");
        Ok(())
    });
}

#[test]
fn check_says_that_this_machine_can_run_the_agent() {
    scenario(|node| {
        let finished = node.agent_verb(["check", "--output", "json"])?;
        let checks: Value =
            serde_json::from_str(&finished.stdout).context(finished.stdout.clone())?;
        ensure!(finished.status.success(), "{checks}");
        ensure!(
            node.agent_verb(["check"])?
                .success()?
                .to_lowercase()
                .contains("btf")
        );
        Ok(())
    });
}

/// What `check` says of the agent's own programs on the node's cgroup.
fn own_programs(node: &Node, agent: &Agent) -> Result<Vec<Value>> {
    let config = agent.config_path().to_string_lossy().into_owned();
    let said = node
        .agent_verb(["check", "--output", "json", "--config", &config])?
        .json()?;
    let findings = said["findings"].as_array().cloned().unwrap_or_default();
    Ok(findings
        .into_iter()
        .filter(|finding| finding["name"] == "own programs")
        .collect())
}

#[test]
fn check_tells_programs_of_a_running_agent_from_those_of_a_killed_one() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let mut agent = node.agent(&node.config().pod(&client))?;
        let running = own_programs(node, &agent)?;
        ensure!(
            running.len() == 1 && running[0]["verdict"] == "ok",
            "{running:?}"
        );
        let found = running[0]["found"].to_string();
        ensure!(
            found.contains(&format!("process {} ", agent.pid())),
            "{found}"
        );
        agent.kill9()?;
        let killed = own_programs(node, &agent)?;
        ensure!(
            killed.len() == 1 && killed[0]["verdict"] == "warning",
            "{killed:?}"
        );
        ensure!(
            killed[0]["found"].to_string().contains("15 on"),
            "{killed:?}"
        );
        let remedy = killed[0]["remedy"].as_str().unwrap_or_default();
        let by_hand = format!("rm -r {}", node.pin_path().display());
        ensure!(remedy.contains(&by_hand), "{remedy}");
        // And it does what it says.
        fs::remove_dir_all(node.pin_path())?;
        wait_until(Duration::from_secs(5), "the programs to go", || {
            Ok(node.attached_programs()?.is_empty())
        })?;
        ensure!(own_programs(node, &agent)?.is_empty());
        Ok(())
    });
}

#[test]
fn check_without_root_fails_and_says_what_to_do() {
    scenario(|node| {
        let public = mesh_tests::PublicDir::new()?;
        let binary = public.path().join("mesh-agent");
        fs::copy(agent_binary()?, &binary)?;
        let finished = node
            .spawn(
                "agent",
                [
                    "setpriv",
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                    "--",
                    &*binary.to_string_lossy(),
                    "check",
                ],
            )?
            .finish(Duration::from_secs(15))?;
        ensure!(finished.status.code() == Some(1), "{finished:?}");
        let said = format!("{}{}", finished.stdout, finished.stderr);
        ensure!(said.contains("root") || said.contains("CAP_BPF"), "{said}");
        Ok(())
    });
}

#[test]
fn metrics_and_health_are_served_over_http() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        // Free a moment ago; another test could only take it by chance.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let agent = node.agent(
            &node
                .config()
                .agent(&format!("metrics: 127.0.0.1:{port}"))
                .pod(&client),
        )?;
        let get = |path: &str| -> Result<String> {
            let url = format!("http://127.0.0.1:{port}{path}");
            node.spawn("pods", ["curl", "-sS", "-f", "-m", "5", &url])?
                .finish(Duration::from_secs(10))?
                .success()
        };
        get("/healthz")?;
        get("/readyz")?;
        let metrics = get("/metrics")?;
        ensure!(metrics.contains("redirected"), "{metrics}");
        drop(agent);
        Ok(())
    });
}
