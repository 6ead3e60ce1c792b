//! A pod that is steered by iptables REDIRECT works with the same listener: with `outbound: false` the
//! kernel half lets its connects through, and conntrack answers where they wanted to go.

use anyhow::{Context, Result, ensure};
use mesh_tests::{program, python, scenario};
use serde_json::Value;

use crate::peers::{CLIENT, SERVER, at, behaviours};

/// Any user but root; the agent's own upstream connections are root's and must not be redirected.
const APP_USER: &str = "65534";

#[test]
fn a_pod_steered_by_iptables_redirect_is_forwarded_by_the_same_agent() {
    scenario(|node| {
        let client = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let _server = behaviours(&server, &["7001=identity"])?;
        let agent = node.agent(
            &node
                .config()
                .pod_with(&client, &["capture: {outbound: false}"]),
        )?;
        let redirect = [
            "iptables",
            "-w",
            "-t",
            "nat",
            "-A",
            "OUTPUT",
            "-p",
            "tcp",
            "-m",
            "owner",
            "--uid-owner",
        ];
        let to = [APP_USER, "-j", "REDIRECT", "--to-ports", "15001"];
        client
            .run(redirect.iter().chain(&to))?
            .success()
            .context("iptables")?;
        // A copy that the other user can read.
        let public = mesh_tests::PublicDir::new()?;
        for script in ["connecting.py", "peer.py"] {
            std::fs::copy(program(script), public.path().join(script))?;
        }
        let script = public
            .path()
            .join("connecting.py")
            .to_string_lossy()
            .into_owned();
        let target = at(SERVER, 7001);
        let run = || -> Result<Value> {
            let user = format!("--reuid={APP_USER}");
            client
                .run([
                    "setpriv",
                    &user,
                    "--clear-groups",
                    python(),
                    &script,
                    "plain",
                    &target,
                ])?
                .json()
        };
        let outcome = run()?;
        ensure!(
            outcome["server"] == "server" && outcome["peer"] == target,
            "{outcome}"
        );
        let status = agent.status()?;
        ensure!(status["counters"]["redirected"] == 0, "{status}");
        ensure!(
            status["connections"]["total"] == 1,
            "not by way of the agent: {status}"
        );
        agent.wait_idle()
    });
}
