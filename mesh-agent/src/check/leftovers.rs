//! The agent's own programs: held by a running agent, or left by one that was killed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::Finding;
use crate::{
    agent::holder_of,
    kernel::{AttachedProgram, Cgroup, pin_directory},
};

/// One finding for each cgroup that has some of ours, given what was `found` where.
pub(super) fn leftovers<'a>(
    found: impl IntoIterator<Item = &'a (PathBuf, AttachedProgram)>,
) -> Vec<Finding> {
    let mut cgroups: Vec<(&Path, BTreeSet<u32>)> = Vec::new();
    for (path, program) in found {
        if !program.is_ours() {
            continue;
        }
        match cgroups.iter_mut().find(|(known, _)| known == path) {
            Some((_, ids)) => {
                ids.insert(program.id);
            }
            None => cgroups.push((path, BTreeSet::from([program.id]))),
        }
    }
    cgroups
        .into_iter()
        .filter_map(|(path, ids)| Some(describe(&Cgroup::open(path).ok()?, ids.len())))
        .collect()
}

fn describe(cgroup: &Cgroup, count: usize) -> Finding {
    const NAME: &str = "own programs";
    let path = cgroup.path().display();
    if let Some(holder) = holder_of(cgroup) {
        return Finding::ok(
            NAME,
            format!("{count} on {path}, of the running agent: {holder}"),
        );
    }
    let remedy = match pin_directory(cgroup) {
        Some(pins) => format!(
            "the next `mesh-agent run` with this cgroup and agent.pinPath takes them over; to \
             remove them by hand: rm -r {}",
            pins.display()
        ),
        None => "the next `mesh-agent run` with this cgroup and the same agent.pinPath takes them \
                 over; no pins are below /sys/fs/bpf: to remove them by hand, remove the directory \
                 that agent.pinPath named"
            .to_owned(),
    };
    Finding::warning(
        NAME,
        format!("{count} on {path}, left by an agent that was killed"),
        remedy,
    )
}
