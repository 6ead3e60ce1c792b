//! The cgroup hierarchy: v1, hybrid or v2, and the directory that programs are attached to.

use std::{fs, path::Path};

use super::Finding;
use crate::kernel::Cgroup;

pub(super) fn cgroup(path: Option<&Path>) -> Vec<Finding> {
    const NAME: &str = "cgroup v2";
    let version1 = fs::read_to_string("/proc/self/mounts")
        .unwrap_or_default()
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("cgroup"));
    let root = match Cgroup::find_root() {
        Ok(root) => root,
        Err(_) if version1 => {
            return vec![Finding::failed(
                NAME,
                "this host has cgroup v1 only",
                "boot with systemd.unified_cgroup_hierarchy=1",
            )];
        }
        Err(error) => return vec![Finding::failed(NAME, error.to_string(), "mount it")],
    };
    let kind = if version1 {
        "hybrid host, v1 controllers beside it"
    } else {
        "unified host"
    };
    let open_root = Cgroup::open_root();
    let mut findings = vec![if open_root.is_ok() {
        Finding::ok(NAME, format!("{} ({kind})", root.display()))
    } else {
        Finding::warning(
            NAME,
            format!(
                "{} is the root of a cgroup namespace, not of the machine",
                root.display()
            ),
            "run the agent in the host's cgroup namespace, or mount the host's cgroup2 hierarchy",
        )
    }];
    let attach_to = path.unwrap_or(&root);
    findings.push(match path.map_or(open_root, Cgroup::open) {
        Err(error) => Finding::failed(
            "cgroup to attach to",
            error.to_string(),
            "set agent.cgroup to a cgroup v2 directory that exists, or to `auto`",
        ),
        Ok(cgroup) if !cgroup.contains_this_process() => Finding::failed(
            "cgroup to attach to",
            format!("this process runs outside of {}", attach_to.display()),
            "start the agent inside it, or name a cgroup above it: the programs only see sockets \
             created inside",
        ),
        Ok(cgroup) if !cgroup.is_root() => Finding::warning(
            "cgroup to attach to",
            format!("{} is not the root", attach_to.display()),
            "pods whose processes run outside of it are not captured",
        ),
        Ok(_) => Finding::ok(
            "cgroup to attach to",
            format!("{} (the root)", root.display()),
        ),
    });
    findings
}
