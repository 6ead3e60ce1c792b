//! The cgroup v2 directory that the programs are attached to.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use super::{
    KernelError,
    mountinfo::{Mount, levels_below, mounts},
};

/// Id of the root of the hierarchy, on every machine.
const ROOT_ID: u64 = 1;

/// An open cgroup v2 directory.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
}

impl Cgroup {
    /// The root of the cgroup v2 hierarchy, wherever it is mounted (on hybrid hosts usually
    /// `/sys/fs/cgroup/unified`); in a container without the host's cgroup namespace, the
    /// highest cgroup that is mounted: see [`Cgroup::is_root`].
    pub fn find_root() -> Result<PathBuf, KernelError> {
        let mounts = mounts().unwrap_or_default();
        let mut points = mounts
            .into_iter()
            .filter(|mount| mount.kind == "cgroup2")
            .map(|mount| mount.point);
        let first = points.next().ok_or_else(|| KernelError::Cgroup {
            path: "auto".into(),
            reason: "no cgroup v2 hierarchy is mounted; boot with \
                     systemd.unified_cgroup_hierarchy=1, or mount one: \
                     mount -t cgroup2 none /sys/fs/cgroup/unified"
                .into(),
        })?;
        let is_root = |point: &PathBuf| Self::open(point).is_ok_and(|cgroup| cgroup.is_root());
        if is_root(&first) {
            return Ok(first);
        }
        Ok(points.find(is_root).unwrap_or(first))
    }

    /// The cgroup that `auto` stands for: the root of the machine's hierarchy.
    pub fn open_root() -> Result<Self, KernelError> {
        let root = Self::open(&Self::find_root()?)?;
        if root.is_root() {
            return Ok(root);
        }
        Err(KernelError::Cgroup {
            path: "auto".into(),
            reason: format!(
                "{} is the root of a cgroup namespace, not of the machine, so pods outside of it \
                 would not be captured; run the agent in the host's cgroup namespace, mount the \
                 host's cgroup2 hierarchy, or name the cgroup",
                root.path.display()
            ),
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

    /// Whether it is the root of the machine's hierarchy.
    pub fn is_root(&self) -> bool {
        self.id().is_ok_and(|id| id == ROOT_ID)
    }

    /// How many levels below the root of the machine's hierarchy it is; the root is 0.
    pub fn level(&self) -> Result<u32, KernelError> {
        let error = |reason: String| KernelError::Cgroup {
            path: self.path.clone(),
            reason,
        };
        let (mount, below) = self
            .mount()
            .map_err(|source| error(format!("cannot tell how it is mounted: {source}")))?;
        let root_is_mounted =
            fs::metadata(&mount.point).is_ok_and(|metadata| metadata.ino() == ROOT_ID);
        let levels = if root_is_mounted {
            Some(below.components().count())
        } else if in_initial_namespace() {
            levels_below(&mount.root.join(below), Path::new("/"))
        } else {
            None
        };
        levels
            .and_then(|levels| u32::try_from(levels).ok())
            .ok_or_else(|| {
                error(
                    "how deep it is in the machine's hierarchy cannot be seen from this cgroup \
                     namespace; run the agent in the host's, or mount the host's cgroup2 hierarchy"
                        .into(),
                )
            })
    }

    /// Whether this process runs in it or below it: the programs only see sockets created there.
    pub fn contains_this_process(&self) -> bool {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = membership
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .map(Path::new);
        let (Some(own), Ok((mount, below))) = (own, self.mount()) else {
            return false;
        };
        self.is_root() || levels_below(own, &mount.root.join(below)).is_some()
    }

    /// The mount that it was opened through, and where it is below that.
    fn mount(&self) -> io::Result<(Mount, PathBuf)> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.directory.as_raw_fd()))?;
        let id: Option<u64> = info
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:"))
            .and_then(|id| id.trim().parse().ok());
        let path = fs::canonicalize(&self.path)?;
        mounts()?
            .into_iter()
            .find(|mount| Some(mount.id) == id)
            .and_then(|mount| {
                let below = path.strip_prefix(&mount.point).ok()?.to_path_buf();
                Some((mount, below))
            })
            .ok_or_else(|| io::Error::other("its mount is not in /proc/self/mountinfo"))
    }
}

/// Whether paths of cgroups are seen from the machine's own root.
fn in_initial_namespace() -> bool {
    /// `PROC_CGROUP_INIT_INO` of include/linux/proc_ns.h.
    const INITIAL: u64 = 0xEFFF_FFFB;
    fs::metadata("/proc/self/ns/cgroup").is_ok_and(|metadata| metadata.ino() == INITIAL)
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}
