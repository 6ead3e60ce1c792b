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
        .is_some_and(|name| {
            PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !is_in_use(name)
        })
}

/// Whether the name carries the id of a process that is alive, like `mesh-test-1234-0-client`: then
/// another test run is under way, and will clean up after itself.
fn is_in_use(name: &str) -> bool {
    name.split('-')
        .find(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        .is_some_and(|process| Path::new("/proc").join(process).exists())
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

#[cfg(test)]
mod tests {
    use super::is_in_use;
    use std::process;

    #[test]
    fn what_a_live_process_made_is_not_left_over() {
        assert!(is_in_use(&format!("mesh-test-{}-0-client", process::id())));
        // Above the kernel's highest process id.
        assert!(!is_in_use("mesh-test-4194305-0-client"));
        assert!(!is_in_use("mesh-demo-client-a"));
    }
}
