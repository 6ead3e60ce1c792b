//! The file systems the tests need: where cgroup v2 is, and a bpffs for the pins.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

/// Where bpffs belongs.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Mount points of one file system type, in the order of the mount table.
fn mounted(kind: &str) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    Ok(table
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.get(2) == Some(&kind))
        .filter_map(|fields| fields.get(1).map(PathBuf::from))
        .collect())
}

/// The cgroup v2 root; on a hybrid host it is not at `/sys/fs/cgroup`.
pub fn cgroup2_root() -> Result<PathBuf> {
    mounted("cgroup2")?
        .into_iter()
        .next()
        .context("no cgroup v2 is mounted on this machine")
}

/// Mounts bpffs if nobody has.
pub fn ensure_bpffs() -> Result<()> {
    if mounted("bpf")?.iter().any(|at| at == Path::new(BPFFS)) {
        return Ok(());
    }
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("cannot mount bpffs at {BPFFS}"))
}
