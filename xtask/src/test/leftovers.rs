//! What a test run must not leave on the machine: network namespaces, pins, cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The names that the tests, the demo and the benchmarks give to what they make.
const PREFIXES: [&str; 2] = ["mesh", "mt-"];
/// Tests may be started from a cgroup some levels down.
const CGROUP_DEPTH: usize = 4;

/// Everything of ours that is there now.
pub fn find() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (kind, directory) in [("network namespace", "/run/netns"), ("pins", "/sys/fs/bpf")] {
        for path in children(Path::new(directory))
            .into_iter()
            .filter(|path| is_ours(path))
        {
            found.insert(format!("{kind} {}", path.display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    for root in roots {
        find_cgroups(&root, CGROUP_DEPTH, &mut found);
    }
    found
}

fn find_cgroups(directory: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for path in children(directory).into_iter().filter(|path| path.is_dir()) {
        if is_ours(&path) {
            found.insert(format!("cgroup {}", path.display()));
        } else if depth > 1 {
            find_cgroups(&path, depth - 1, found);
        }
    }
}

fn is_ours(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// A directory that is not there has no children.
fn children(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}
