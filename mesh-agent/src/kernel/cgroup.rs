//! The cgroup v2 directory that the programs are attached to.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use super::KernelError;

/// An open cgroup v2 directory.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
}

impl Cgroup {
    /// The root of the cgroup v2 hierarchy, wherever it is mounted (on hybrid hosts usually
    /// `/sys/fs/cgroup/unified`).
    pub fn find_root() -> Result<PathBuf, KernelError> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        mounts
            .lines()
            .find_map(|line| {
                let mut fields = line.split(' ');
                let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
                (kind == "cgroup2").then(|| PathBuf::from(path))
            })
            .ok_or_else(|| KernelError::Cgroup {
                path: "auto".into(),
                reason: "no cgroup v2 hierarchy is mounted; boot with \
                         systemd.unified_cgroup_hierarchy=1, or mount one: \
                         mount -t cgroup2 none /sys/fs/cgroup/unified"
                    .into(),
            })
    }

    /// Opens a cgroup directory, which must be on a cgroup v2 hierarchy.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let error = |reason: String| KernelError::Cgroup {
            path: path.into(),
            reason,
        };
        let directory = File::open(path).map_err(|source| {
            error(format!(
                "{source}; name an existing cgroup v2 directory, or `auto`"
            ))
        })?;
        let kind = fstatfs(&directory)
            .map_err(|source| error(source.to_string()))?
            .filesystem_type();
        if kind != CGROUP2_SUPER_MAGIC {
            return Err(error(
                "not on a cgroup v2 hierarchy; name a directory below the cgroup2 mount, or `auto`"
                    .into(),
            ));
        }
        Ok(Self {
            path: path.into(),
            directory,
        })
    }

    /// Its path, as opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id that the kernel's programs know it by: its inode number.
    pub fn id(&self) -> Result<u64, KernelError> {
        self.directory
            .metadata()
            .map(|metadata| metadata.ino())
            .map_err(|source| KernelError::Cgroup {
                path: self.path.clone(),
                reason: source.to_string(),
            })
    }

    /// How many levels below the root of the hierarchy it is; the root is 0.
    pub fn level(&self) -> Result<u32, KernelError> {
        let mut level = 0;
        let mut path = fs::canonicalize(&self.path).map_err(|source| KernelError::Cgroup {
            path: self.path.clone(),
            reason: source.to_string(),
        })?;
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        let own = device(&path);
        while path.pop() && device(&path) == own {
            level += 1;
        }
        Ok(level)
    }

    /// Whether this process runs in it or below it: the programs only see sockets created there.
    pub fn contains_this_process(&self) -> bool {
        let Ok(root) = Self::find_root() else {
            return false;
        };
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let Some(own) = membership
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
        else {
            return false;
        };
        let (Ok(own), Ok(cgroup)) = (
            fs::canonicalize(root.join(own)),
            fs::canonicalize(&self.path),
        ) else {
            return false;
        };
        own.starts_with(cgroup)
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}
