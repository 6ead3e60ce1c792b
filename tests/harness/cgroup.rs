//! The cgroup of one node, with a leaf for each kind of process.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait::wait_until;

/// How long killed processes may take to leave the cgroup.
const EMPTY_BOUND: Duration = Duration::from_secs(10);

/// A cgroup v2 directory that is emptied and removed when dropped.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Takes charge of a cgroup that another run left behind.
    pub fn adopt(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The leaf `name`, made at first use, opened so that a child can enter it before exec.
    pub fn leaf(&self, name: &str) -> Result<OwnedFd> {
        let leaf = self.path.join(name);
        fs::create_dir_all(&leaf)?;
        let procs = leaf.join("cgroup.procs");
        let file: File = OpenOptions::new()
            .write(true)
            .open(&procs)
            .with_context(|| format!("cannot open {}", procs.display()))?;
        Ok(file.into())
    }

    /// Ends every process in the cgroup. Safe to call at any time, also from the watchdog.
    pub fn kill_all(&self) -> Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
            .context("cannot kill the processes of the cgroup")
    }

    /// Ends every process in it and removes it.
    pub fn remove(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        self.kill_all()?;
        wait_until(EMPTY_BOUND, "the cgroup to empty", || {
            Ok(fs::read_to_string(self.path.join("cgroup.events"))?.contains("populated 0"))
        })?;
        remove_tree(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("cgroup {} was left behind: {error:#}", self.path.display());
        }
    }
}

/// Removes a cgroup directory and those below it; their files are the kernel's.
fn remove_tree(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("cannot remove the cgroup {}", path.display()))
}
