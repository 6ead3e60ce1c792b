//! The harness must be right before anything it says about the agent is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use mesh_tests::{Node, python, scenario};

#[test]
fn two_pods_reach_each_other_over_v4_and_v6() {
    scenario(|node| {
        let client = node.pod("client", "10.77.0.2", Some("fd77::2"))?;
        let server = node.pod("server", "10.77.0.10", Some("fd77::10"))?;
        let _http = server
            .spawn([python(), "-m", "http.server", "--bind", "::", "8080"])?
            .listening(8080)?;
        for url in ["http://10.77.0.10:8080/", "http://[fd77::10]:8080/"] {
            client
                .run(["curl", "-sS", "-m", "5", "-o", "/dev/null", url])?
                .success()?;
        }
        Ok(())
    });
}

#[test]
fn nothing_is_left_when_a_test_has_ended() {
    scenario(|_| {
        let node = Node::new()?;
        let pod = node.pod("client", "10.77.0.2", None)?;
        let (cgroup, dir, netns) = (
            node.cgroup().to_owned(),
            node.dir().to_owned(),
            pod.netns_path(),
        );
        let sleeper = pod.spawn(["sleep", "600"])?;
        let pid = sleeper.pid();
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        ensure!(
            membership.contains(
                &*node
                    .cgroup()
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
            ),
            "{membership}"
        );
        drop((node, pod, sleeper));
        for path in [&cgroup, &dir, &netns, Path::new(&format!("/proc/{pid}"))] {
            ensure!(!path.exists(), "{} is still there", path.display());
        }
        Ok(())
    });
}

#[test]
fn a_program_that_hangs_is_ended_in_time() {
    scenario(|node| {
        let pod = node.pod("client", "10.77.0.2", None)?;
        let error = pod
            .spawn(["sleep", "600"])?
            .finish(Duration::from_millis(200));
        ensure!(error.is_err(), "a program that hangs counted as ended");
        Ok(())
    });
}
