//! Whatever is wrong is said in one clear line, the exit code is not 0, and nothing is half done.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Config, Finished, Node, Pod, agent_binary, proc_net_listens, scenario};

use crate::peers::{CLIENT, CLIENT6};

const OUTBOUND_PORT: u16 = 15001;

/// Checks that the agent refused in one line that contains all of `words`, and that it left nothing.
fn ensure_refused(node: &Node, finished: &Finished, words: &[&str]) -> Result<()> {
    ensure!(
        finished.status.code().is_some_and(|code| code != 0),
        "it ended with {}",
        finished.status
    );
    let lines: Vec<_> = finished.stderr.lines().collect();
    let errors: Vec<_> = lines
        .iter()
        .filter(|line| !line.contains(" INFO ") && !line.contains(" WARN "))
        .collect();
    ensure!(
        errors.len() == 1,
        "not one line but {}:\n{}",
        errors.len(),
        finished.stderr
    );
    for word in words {
        ensure!(
            errors[0].contains(word),
            "{word:?} is not in the line: {}",
            errors[0]
        );
    }
    node.ensure_no_traces()
}

fn refused(node: &Node, config: &Config, words: &[&str]) -> Result<()> {
    ensure_refused(node, &node.refused(&config.to_yaml())?, words)
}

/// Checks that nobody listens on the agent's port in the pod.
fn ensure_not_entered(pod: &Pod) -> Result<()> {
    let mut probe = pod.spawn(["sleep", "60"])?;
    let listens = proc_net_listens(probe.pid(), OUTBOUND_PORT);
    probe.kill()?;
    ensure!(
        !listens,
        "somebody listens on port {OUTBOUND_PORT} in {}",
        pod.name()
    );
    Ok(())
}

#[test]
fn an_unknown_field_is_named() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        refused(
            node,
            &node.config().pod_with(&pod, &["excludePort: [22]"]),
            &["excludePort"],
        )?;
        refused(
            node,
            &node.config().agent("colour: blue").pod(&pod),
            &["colour"],
        )?;
        ensure_not_entered(&pod)
    });
}

#[test]
fn a_bad_value_is_named_with_its_field() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        for (line, words) in [
            ("drainTimeout: soon", ["drainTimeout", "soon"]),
            ("drainTimeout: 5", ["drainTimeout", "5"]),
            ("metrics: nowhere", ["metrics", "nowhere"]),
        ] {
            refused(node, &node.config().agent(line).pod(&pod), &words)?;
        }
        for (line, words) in [
            ("excludePorts: [70000]", ["excludePorts", "70000"]),
            (
                "excludeCidrs: [10.0.0.0/40]",
                ["excludeCidrs", "10.0.0.0/40"],
            ),
            ("onAgentDown: maybe", ["onAgentDown", "maybe"]),
        ] {
            refused(node, &node.config().pod_with(&pod, &[line]), &words)?;
        }
        ensure_not_entered(&pod)
    });
}

#[test]
fn a_file_that_is_no_yaml_or_is_not_there_is_named() {
    scenario(|node| {
        ensure_refused(
            node,
            &node.refused("agent: [unclosed\npods: x: y")?,
            &["refused.yaml:1"],
        )?;
        let missing = node
            .dir()
            .join("missing.yaml")
            .to_string_lossy()
            .into_owned();
        let finished = node.agent_verb(["run", "--config", &missing])?;
        ensure_refused(node, &finished, &["missing.yaml"])
    });
}

#[test]
fn a_namespace_that_is_none_is_named() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let file = node.dir().join("not-a-namespace");
        fs::write(&file, "just a file")?;
        refused(
            node,
            &node.config().pod(&pod).pod_at("other", &file, &[]),
            &["other", "not-a-namespace"],
        )?;
        ensure_not_entered(&pod)
    });
}

#[test]
fn a_fifo_for_a_namespace_is_named() {
    scenario(|node| {
        let fifo = node.dir().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
        let config = node.config().pod_at("other", &fifo, &[]);
        refused(node, &config, &["other", "fifo", "not a network namespace"])
    });
}

#[test]
fn one_namespace_under_two_names_is_refused_however_it_is_spelt() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let twice = |path: &Path| {
            let config = node.config().pod(&pod).pod_at("twin", path, &[]);
            refused(node, &config, &["netns", &*path.to_string_lossy()])
        };
        twice(&pod.netns_path()).context("the same path")?;

        let link = node.dir().join("link");
        symlink(pod.netns_path(), &link)?;
        twice(&link).context("a symbolic link")?;

        // A process keeps the namespace reachable by another path.
        let mut sleeper = pod.spawn(["sleep", "60"])?;
        twice(Path::new(&format!("/proc/{}/ns/net", sleeper.pid())))
            .context("a path below /proc")?;
        sleeper.kill()?;

        let bound = mesh_tests::BindMount::new(&pod.netns_path(), &node.dir().join("bound"))?;
        twice(bound.path()).context("a bind mount")?;
        ensure_not_entered(&pod)
    });
}

#[test]
fn one_pod_name_twice_is_refused() {
    scenario(|node| {
        let (one, two) = (
            node.pod("one", CLIENT, None)?,
            node.pod("two", "10.77.0.3", None)?,
        );
        let config = node
            .config()
            .pod(&one)
            .pod_at("one", &two.netns_path(), &[]);
        refused(node, &config, &["one"])
    });
}

#[test]
fn a_port_taken_inside_the_pod_is_named_with_the_pod() {
    scenario(|node| {
        let free = node.pod("free", "10.77.0.3", None)?;
        let pod = node.pod("client", CLIENT, Some(CLIENT6))?;
        let _taker = pod
            .spawn_python("original_dst.py", ["15001"])?
            .listening(OUTBOUND_PORT)?;
        // The first pod is fine, but nothing is done by halves.
        refused(
            node,
            &node.config().pod(&free).pod(&pod),
            &["client", "15001"],
        )?;
        ensure_not_entered(&free)
    });
}

#[test]
fn a_cgroup_that_is_not_there_is_named() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let missing = node.cgroup().join("missing");
        let line = format!("cgroup: {}", missing.display());
        refused(
            node,
            &node.config().agent(&line).pod(&pod),
            &["cgroup", "missing"],
        )?;
        // A directory, but not of cgroup v2.
        let line = format!("cgroup: {}", node.dir().display());
        refused(node, &node.config().agent(&line).pod(&pod), &["cgroup"])?;
        ensure_not_entered(&pod)
    });
}

#[test]
fn a_pin_path_that_is_on_no_bpffs_is_named() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let line = format!("pinPath: {}", node.dir().join("pins").display());
        refused(node, &node.config().agent(&line).pod(&pod), &["pin", "bpf"])
    });
}

#[test]
fn a_file_where_the_admin_socket_belongs_is_named_and_stays() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        let file = node.dir().join("notes.txt");
        fs::write(&file, "precious")?;
        let line = format!("adminSocket: {}", file.display());
        refused(
            node,
            &node.config().agent(&line).pod(&pod),
            &["adminSocket", "notes.txt"],
        )?;
        ensure!(fs::read_to_string(&file)? == "precious");
        ensure_not_entered(&pod)
    });
}

#[test]
fn without_root_it_says_so() {
    scenario(|node| {
        let pod = node.pod("client", CLIENT, None)?;
        // Where another user can read them.
        let public = mesh_tests::PublicDir::new()?;
        let (binary, config) = (
            public.path().join("mesh-agent"),
            public.path().join("config.yaml"),
        );
        fs::copy(agent_binary()?, &binary)?;
        fs::write(&config, node.config().pod(&pod).to_yaml())?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o644))?;
        let finished = node
            .spawn(
                "agent",
                [
                    "setpriv",
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                    "--inh-caps=-all",
                    "--",
                    &*binary.to_string_lossy(),
                    "run",
                    "--config",
                    &config.to_string_lossy(),
                ],
            )?
            .finish(std::time::Duration::from_secs(15))?;
        ensure_refused(node, &finished, &["root"])?;
        ensure_not_entered(&pod)
    });
}

/// Runs the agent where `hide` has taken something away, in mount and cgroup namespaces of its own.
fn refused_where(node: &Node, hide: &str, words: &[&str]) -> Result<()> {
    let pod = node.pod("client", CLIENT, None)?;
    let config = node.dir().join("config.yaml");
    fs::write(
        &config,
        node.config().agent("cgroup: auto").pod(&pod).to_yaml(),
    )?;
    let script = format!("{hide} && exec \"$0\" run --config \"$1\"");
    let binary = agent_binary()?;
    let finished = node
        .spawn(
            "agent",
            [
                "unshare",
                "--mount",
                "--cgroup",
                "sh",
                "-c",
                &script,
                &binary.to_string_lossy(),
                &config.to_string_lossy(),
            ],
        )?
        .finish(std::time::Duration::from_secs(15))?;
    ensure_refused(node, &finished, words)?;
    ensure_not_entered(&pod)
}

#[test]
fn a_kernel_without_btf_is_named() {
    scenario(|node| refused_where(node, "mount -t tmpfs none /sys/kernel/btf", &["BTF"]));
}

const HIDE_CGROUPS: &str =
    "for at in $(awk '$3 == \"cgroup2\" {print $2}' /proc/mounts); do umount -l $at; done";

#[test]
fn a_machine_without_cgroup_v2_is_named() {
    scenario(|node| refused_where(node, HIDE_CGROUPS, &["cgroup v2"]));
}

#[test]
fn the_root_of_a_cgroup_namespace_is_not_taken_for_the_machines() {
    scenario(|node| {
        let mounted = node.dir().join("of the namespace");
        fs::create_dir(&mounted)?;
        let hide = format!(
            "{HIDE_CGROUPS} && mount -t cgroup2 none '{}'",
            mounted.display()
        );
        refused_where(
            node,
            &hide,
            &["auto", "of the namespace", "cgroup namespace"],
        )
    });
}
