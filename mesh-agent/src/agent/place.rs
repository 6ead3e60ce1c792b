//! One agent per place: two would redirect each other's connections.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::kernel::Cgroup;

/// Locks on the cgroup and on the pin directory. The kernel releases them however the agent ends.
#[derive(Debug)]
pub struct Place {
    _cgroup: Flock<File>,
    _pins: Flock<File>,
    pin_path: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Stays if there are pins in it.
        let _not_empty = fs::remove_dir(&self.pin_path);
    }
}

/// Why the place cannot be had.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// Another agent has it.
    #[error(
        "{what} {path} is held by another agent: {holder}; stop that one first, or give this one {what_else}"
    )]
    Held {
        /// What is held.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Process id and command line.
        holder: String,
        /// What the second agent needs.
        what_else: &'static str,
    },
    /// The lock could not be tried.
    #[error("{path}: {source}; is a bpffs mounted there? (mount -t bpf bpf /sys/fs/bpf)")]
    System {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Place {
    /// Takes the place, or says who has it.
    pub fn take(cgroup: &Cgroup, pin_path: &Path) -> Result<Self, PlaceError> {
        let cgroup_lock = lock(cgroup.path(), "agent.cgroup", "a cgroup of its own")?;
        let system = |source| PlaceError::System {
            path: pin_path.into(),
            source,
        };
        require_bpffs(pin_path).map_err(system)?;
        fs::create_dir_all(pin_path).map_err(system)?;
        Ok(Self {
            _cgroup: cgroup_lock,
            _pins: lock(pin_path, "agent.pinPath", "another pin path")?,
            pin_path: pin_path.into(),
        })
    }
}

/// Maps can only be pinned on a bpffs.
fn require_bpffs(pin_path: &Path) -> io::Result<()> {
    let existing = pin_path
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let kind = nix::sys::statfs::statfs(existing)?.filesystem_type();
    if kind == nix::sys::statfs::BPF_FS_MAGIC {
        Ok(())
    } else {
        Err(io::Error::other("not on a bpffs"))
    }
}

fn lock(
    path: &Path,
    what: &'static str,
    what_else: &'static str,
) -> Result<Flock<File>, PlaceError> {
    let system = |source| PlaceError::System {
        path: path.into(),
        source,
    };
    let directory = File::open(path).map_err(system)?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((directory, nix::Error::EWOULDBLOCK)) => Err(PlaceError::Held {
            what,
            path: path.into(),
            holder: holder(&directory)
                .unwrap_or_else(|| "a process that cannot be seen from here".into()),
            what_else,
        }),
        Err((_, errno)) => Err(system(errno.into())),
    }
}

/// Who holds the lock, according to /proc/locks.
fn holder(directory: &File) -> Option<String> {
    let _keep_open = directory.as_fd();
    let inode = directory.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 4242 00:1c:1 0 EOF
    let process = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (&kind, &process, &file) = (fields.get(1)?, fields.get(4)?, fields.get(5)?);
        (kind == "FLOCK" && file.rsplit(':').next() == Some(&inode) && is_agent(process))
            .then(|| process.to_owned())
    })?;
    let command = command_line(&process).unwrap_or_default();
    Some(format!("process {process} ({command})"))
}

fn command_line(process: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{process}/cmdline")).ok()?;
    let words: Vec<_> = bytes
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    Some(words.join(" ").trim().to_owned())
}

/// The inode number alone may name files of several filesystems.
fn is_agent(process: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/comm"))
        .is_ok_and(|name| name.trim().starts_with("mesh-agent"))
}
