//! Things a test puts beside its node, removed when dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::node::PREFIX;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A bind mount of one file.
pub struct BindMount {
    path: PathBuf,
}

impl BindMount {
    /// Makes `path` another name of `source`.
    pub fn new(source: &Path, path: &Path) -> Result<Self> {
        fs::write(path, "")?;
        Self::over(source, path)
    }

    /// Makes the file that is at `path` another name of `source` for a while.
    pub fn over(source: &Path, path: &Path) -> Result<Self> {
        mount(
            Some(source),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .with_context(|| format!("cannot bind {} to {}", source.display(), path.display()))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BindMount {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.path, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}

/// A directory that every user can read.
pub struct PublicDir {
    path: PathBuf,
}

impl PublicDir {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}-{}-public{number}", process::id()));
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PublicDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} was left behind: {error}", self.path.display());
        }
    }
}
