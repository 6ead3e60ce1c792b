//! Two agents at once: the second says who holds the place, and goes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_tests::{Config, Node, Pod, Process, scenario};

use crate::peers::{CLIENT, SERVER, at, behaviours};

const BOUND: Duration = Duration::from_secs(15);

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
fn another_cgroup_does_not_let_a_second_agent_to_the_same_pins() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let socket = format!("adminSocket: {}", node.dir().join("second.sock").display());
        // Below, so that the second runs inside of it too.
        let leaf = node.cgroup_leaf("agent")?;
        let cgroup = format!("cgroup: {}", leaf.display());
        second_goes(node, &pod, |config| config.agent(&socket).agent(&cgroup))?;
        let lock = lock_file(&leaf)?;
        ensure!(!fs::exists(&lock)?, "the second left {lock}");
        Ok(())
    });
}

#[test]
fn a_user_who_locks_what_all_can_open_keeps_no_agent_from_starting() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let config = node.config().pod(&pod);
        let mut agent = node.agent(&config)?;
        let lock = lock_file(node.cgroup())?;
        for path in [node.pin_path(), Path::new(&lock)] {
            let script = format!("flock --nonblock {} true", path.display());
            let finished = as_nobody(node, &script)?.finish(BOUND)?;
            ensure!(
                !finished.status.success(),
                "{} can be locked",
                path.display()
            );
        }
        agent.kill9()?;
        let script = format!(
            "flock --nonblock {} sh -c 'echo locked; exec sleep 60'",
            node.cgroup().display()
        );
        let mut locker = as_nobody(node, &script)?;
        locker.wait_stdout("locked", BOUND)?;
        agent.start_again()?;
        locker.kill()
    });
}

fn lock_file(cgroup: &Path) -> Result<String> {
    let id = fs::metadata(cgroup)?.ino();
    Ok(format!("/run/mesh-agent/cgroup-{id}.lock"))
}

fn as_nobody(node: &Node, script: &str) -> Result<Process> {
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    node.spawn("user", user.into_iter().chain(["--", "sh", "-c", script]))
}

#[test]
fn an_agent_that_ends_leaves_no_lock_file() {
    scenario(|node| {
        let lock = lock_file(node.cgroup())?;
        let pod = node.pod("client", CLIENT, None)?;
        let agent = node.agent(&node.config().pod(&pod))?;
        ensure!(fs::metadata(&lock)?.mode() & 0o777 == 0o600);
        agent.terminate(BOUND)?;
        ensure!(!fs::exists(&lock)?, "{lock} is still there");
        Ok(())
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
