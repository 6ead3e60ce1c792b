//! Other products' programs on the same hooks. They are never detached or reordered.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use super::Finding;
use crate::kernel::{AttachedProgram, Cgroup, attached_programs};

/// How deep below the cgroup to look: Kubernetes has its pods five levels down.
const DEPTH: usize = 6;

/// Whose programs these are, by how their names begin, and what to do.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "cil_sock",
        "Cilium's socket load balancer",
        "it may rewrite service addresses before the mesh sees them: set Cilium's \
         socketLB.hostNamespaceOnly=true, so that pods' connects stay untouched",
    ),
    (
        "sock4_connect",
        "an older Cilium's socket load balancer",
        "set Cilium's hostServices.hostNamespaceOnly=true, so that pods' connects stay untouched",
    ),
    (
        "sock6_connect",
        "an older Cilium's socket load balancer",
        "set Cilium's hostServices.hostNamespaceOnly=true, so that pods' connects stay untouched",
    ),
    (
        "mb_",
        "Merbridge",
        "it redirects the same connects: remove one of the two from these nodes",
    ),
    (
        "cgroup_connect",
        "Kmesh",
        "it redirects the same connects: remove one of the two from these nodes",
    ),
    (
        "cnl_",
        "Calico's connect-time load balancer",
        "it rewrites service addresses before the mesh sees them: set its \
         bpfConnectTimeLoadBalancing to Disabled",
    ),
    (
        "calico_connect",
        "Calico's connect-time load balancer",
        "it rewrites service addresses before the mesh sees them: set its \
         bpfConnectTimeLoadBalancing to Disabled",
    ),
];

/// The programs on our hooks that act on `cgroup`, on cgroups above and below it, each with where
/// it is attached.
pub(super) fn attached(cgroup: Option<&Path>) -> Vec<(PathBuf, AttachedProgram)> {
    let Some(start) = cgroup
        .map(Path::to_path_buf)
        .or_else(|| Cgroup::find_root().ok())
    else {
        return Vec::new();
    };
    let above = start.ancestors().skip(1).map(Path::to_path_buf);
    let mut found: Vec<_> = above
        .chain(descendants(&start, DEPTH))
        .chain([start.clone()])
        .flat_map(|path| programs_on(&path, false))
        .collect();
    // Those that the path does not lead to: it is a bind mount, or the root of a cgroup namespace.
    for program in programs_on(&start, true) {
        if !found.iter().any(|(_, known)| known.is_same(&program.1)) {
            found.push(program);
        }
    }
    found.sort_by(|left, right| (left.1.id, left.1.hook).cmp(&(right.1.id, right.1.hook)));
    found
}

/// What to say of those `found` that are not ours.
pub(super) fn rivals(found: &[(PathBuf, AttachedProgram)]) -> Vec<Finding> {
    const NAME: &str = "other programs";
    let mut others: Vec<_> = found
        .iter()
        .filter(|(_, program)| !program.is_ours())
        .collect();
    others.dedup_by(|left, right| left.1.is_same(&right.1));
    if others.is_empty() {
        return vec![Finding::ok(NAME, "none on the hooks that the agent uses")];
    }
    others
        .into_iter()
        .map(|(path, program)| describe(NAME, path, program))
        .collect()
}

fn describe(name: &'static str, path: &Path, program: &AttachedProgram) -> Finding {
    let place = format!(
        "program {} (id {}) on {} of {}",
        program.name,
        program.id,
        program.hook,
        path.display()
    );
    let known = KNOWN
        .iter()
        .find(|(prefix, _, _)| program.name.starts_with(prefix));
    match known {
        Some((_, owner, remedy)) => Finding::warning(name, format!("{owner}: {place}"), *remedy),
        None => Finding::warning(
            name,
            place,
            format!(
                "find out whose it is (bpftool prog show id {}); both run, in the order attached: \
                 if it changes addresses too, only one of the two should be on this node",
                program.id
            ),
        ),
    }
}

fn programs_on(path: &Path, effective: bool) -> Vec<(PathBuf, AttachedProgram)> {
    let Ok(cgroup) = Cgroup::open(path) else {
        return Vec::new();
    };
    attached_programs(cgroup.as_fd(), effective)
        .into_iter()
        .map(|program| (path.to_path_buf(), program))
        .collect()
}

fn descendants(path: &Path, depth: usize) -> Vec<PathBuf> {
    if depth == 0 {
        return Vec::new();
    }
    let children = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path());
    children
        .flat_map(|child| {
            let mut all = descendants(&child, depth - 1);
            all.push(child);
            all
        })
        .collect()
}
