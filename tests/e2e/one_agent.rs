//! Two agents at once: the second says who holds the place, and goes.

use anyhow::{Result, ensure};
use mesh_tests::{Config, Node, Pod, scenario};

use crate::peers::{CLIENT, SERVER, at, behaviours};

fn second_goes(node: &Node, pod: &Pod, change: impl Fn(Config) -> Config) -> Result<()> {
    let server = node.pod("server", SERVER, None)?;
    let _server = behaviours(&server, &["7001=identity"])?;
    let mut agent = node.agent(&node.config().pod(pod))?;
    let attached = node.attached_programs()?;
    let finished = node.refused(&change(node.config()).pod(pod).to_yaml())?;
    ensure!(
        finished.status.code().is_some_and(|code| code != 0),
        "the second ended with {}",
        finished.status
    );
    ensure!(
        finished.stderr.lines().count() == 1,
        "not one line:\n{}",
        finished.stderr
    );
    ensure!(
        finished.stderr.contains(&agent.pid().to_string()),
        "the holder's pid is not named: {}",
        finished.stderr
    );
    ensure!(agent.is_running()?, "the first ended");
    ensure!(
        node.attached_programs()? == attached,
        "the second changed what is attached"
    );
    let outcome = pod
        .python("connecting.py", ["plain", &at(SERVER, 7001)])?
        .json()?;
    ensure!(outcome["server"] == "server", "{outcome}");
    ensure!(
        agent.counter("redirected")? == 1,
        "the first no longer captures: {}",
        agent.status()?
    );
    agent.wait_idle()
}

#[test]
fn the_second_agent_names_the_first_and_ends() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        second_goes(node, &pod, |config| config)
    });
}

#[test]
fn another_admin_socket_does_not_let_a_second_agent_in() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let socket = format!("adminSocket: {}", node.dir().join("second.sock").display());
        second_goes(node, &pod, |config| config.agent(&socket))
    });
}

#[test]
fn another_pin_path_does_not_let_a_second_agent_into_the_same_cgroup() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let socket = format!("adminSocket: {}", node.dir().join("second.sock").display());
        let pins = format!("pinPath: {}-second", node.pin_path().display());
        second_goes(node, &pod, |config| config.agent(&socket).agent(&pins))
    });
}
