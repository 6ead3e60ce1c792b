//! Removes what a test run left behind that was killed before it could clean up.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::cgroup::Cgroup;
use crate::mounts::{BPFFS, cgroup2_root};
use crate::netns::{NETNS_DIR, delete};
use crate::node::PREFIX;

/// Removes namespaces, cgroups, pins and directories whose test process is gone.
pub fn leftovers() -> Result<()> {
    for name in stale(&cgroup2_root()?)? {
        Cgroup::adopt(cgroup2_root()?.join(name)).remove()?;
    }
    for name in stale(Path::new(NETNS_DIR))? {
        delete(&name)?;
    }
    for parent in [Path::new(BPFFS), &std::env::temp_dir()] {
        for name in stale(parent)? {
            fs::remove_dir_all(parent.join(name))?;
        }
    }
    Ok(())
}

/// Names in `parent` that a dead test process made.
fn stale(parent: &Path) -> Result<Vec<String>> {
    if !parent.exists() {
        return Ok(Vec::new());
    }
    let names = fs::read_dir(parent)?
        .flatten()
        .map(|entry| entry.file_name());
    Ok(names
        .filter_map(|name| {
            owner(&name)
                .filter(|pid| !is_alive(*pid))
                .map(|_| name.to_string_lossy().into_owned())
        })
        .collect())
}

/// The process id in a name like `mesh-test-1234-0-client`.
fn owner(name: &OsStr) -> Option<u32> {
    name.to_str()?
        .strip_prefix(PREFIX)?
        .strip_prefix('-')?
        .split('-')
        .next()?
        .parse()
        .ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
