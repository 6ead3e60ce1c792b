//! The harness must be right before anything it says about the agent is.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_tests::{DelayedLink, LinkEnd, Node, Scenario, python, scenario, sweep_leftovers};
use nix::unistd::geteuid;

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
fn a_delayed_link_delays_by_as_much_as_was_asked_for() {
    scenario(|node| {
        let client = node.pod("client", "10.77.0.2", None)?;
        let server = node.pod("server", "10.77.0.10", None)?;
        let end = |pod, address, milliseconds| LinkEnd {
            pod,
            address,
            delay: Duration::from_millis(milliseconds),
        };
        let _link = DelayedLink::between(
            "slow0",
            end(&client, "10.99.0.1", 7),
            end(&server, "10.99.0.2", 3),
        )?;
        let _echo = server
            .spawn_python("ping_pong.py", ["serve", "7000"])?
            .listening(7000)?;
        let median = |address: &str| -> Result<Duration> {
            let mut times: Vec<u64> = serde_json::from_value(
                client
                    .python("ping_pong.py", ["ask", address, "7000", "51"])?
                    .json()?,
            )?;
            times.sort_unstable();
            Ok(Duration::from_micros(times[times.len() / 2]))
        };
        let (plain, delayed) = (median("10.77.0.10")?, median("10.99.0.2")?);
        ensure!(plain < Duration::from_millis(2), "{plain:?} without delay");
        // All the rest is other programs on the machine.
        let expected = Duration::from_millis(10)..Duration::from_millis(11);
        ensure!(expected.contains(&delayed), "{delayed:?} for 7 ms + 3 ms");
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

#[test]
fn a_test_that_panics_is_cleaned_up_after() {
    let seen = Mutex::new(Vec::new());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        scenario(|node| {
            let pod = node.pod("client", "10.77.0.2", None)?;
            let sleeper = pod.spawn(["sleep", "600"])?;
            let process = Path::new("/proc").join(sleeper.pid().to_string());
            let paths = [
                node.cgroup().to_owned(),
                node.dir().to_owned(),
                pod.netns_path(),
                process,
            ];
            seen.lock().expect("nobody else holds it").extend(paths);
            panic!("on purpose");
        });
    }));
    let seen = seen.into_inner().expect("nobody else holds it");
    // Without root the scenario does nothing at all.
    assert_eq!(outcome.is_err(), !seen.is_empty());
    for path in seen {
        assert!(!path.exists(), "{} is still there", path.display());
    }
}

#[test]
fn a_test_that_takes_too_long_is_ended() {
    let started = Instant::now();
    let outcome = catch_unwind(|| {
        Scenario::default()
            .bound(Duration::from_millis(300))
            .run(|node| {
                let pod = node.pod("client", "10.77.0.2", None)?;
                pod.run(["sleep", "600"])?.success().map(drop)
            });
    });
    assert!(outcome.is_err() == geteuid().is_root() && started.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_a_killed_run_left_behind_is_swept() {
    scenario(|node| {
        let pod = node.pod("client", "10.77.0.2", None)?;
        // A process id that was in use a moment ago.
        let mut gone = pod.spawn(["sleep", "600"])?;
        let id = format!("mesh-test-{}-0", gone.pid());
        gone.kill()?;
        let beside = |path: &Path| path.with_file_name(&id);
        let (cgroup, dir, netns) = (
            beside(node.cgroup()),
            beside(node.dir()),
            beside(&pod.netns_path()),
        );
        fs::create_dir_all(cgroup.join("pods"))?;
        fs::create_dir(&dir)?;
        pod.run(["ip", "netns", "add", &id])?.success()?;
        sweep_leftovers()?;
        for path in [&cgroup, &dir, &netns] {
            ensure!(!path.exists(), "{} is still there", path.display());
        }
        ensure!(
            node.dir().exists() && pod.netns_path().exists(),
            "it swept what is in use"
        );
        Ok(())
    });
}
