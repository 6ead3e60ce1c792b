//! One agent per place: two would redirect each other's connections.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::kernel::Cgroup;

/// Where the cgroups' lock files are. A cgroup's own directory can be opened, and so locked, by
/// every user.
const LOCK_DIRECTORY: &str = "/run/mesh-agent";

/// Locks that stand for the cgroup and for the pin directory, on files that only root can open. The
/// kernel releases them however the agent ends.
#[derive(Debug)]
pub struct Place {
    _cgroup: Held,
    _pins: Held,
}

/// A lock, and how to remove what it is on.
#[derive(Debug)]
struct Held {
    _lock: Flock<File>,
    path: PathBuf,
    remove: fn(&Path) -> io::Result<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // While the lock is held: whoever opened the path before will find, once it has the lock,
        // that the path names it no longer. A directory with pins in it stays.
        let _not_empty = (self.remove)(&self.path);
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
    /// The lock file could not be made.
    #[error("{LOCK_DIRECTORY}: {0}; the agent keeps its locks there")]
    LockDirectory(io::Error),
    /// The pin directory could not be made or opened.
    #[error(
        "agent.pinPath: {path}: {source}; is a bpffs mounted there? (mount -t bpf bpf /sys/fs/bpf)"
    )]
    Pins {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Place {
    /// Takes the place, or says who has it.
    pub fn take(cgroup: &Cgroup, pin_path: &Path) -> Result<Self, PlaceError> {
        let lock_file = lock_file(cgroup).map_err(PlaceError::LockDirectory)?;
        let cgroup_lock = lock(&lock_file, open_lock_file, |path| fs::remove_file(path))
            .map_err(PlaceError::LockDirectory)?
            .map_err(|holder| PlaceError::Held {
                what: "agent.cgroup",
                path: cgroup.path().into(),
                holder,
                what_else: "a cgroup of its own",
            })?;
        let on_pins = |source| PlaceError::Pins {
            path: pin_path.into(),
            source,
        };
        require_bpffs(pin_path).map_err(on_pins)?;
        let pins = lock(pin_path, open_pin_directory, |path| fs::remove_dir(path))
            .map_err(on_pins)?
            .map_err(|holder| PlaceError::Held {
                what: "agent.pinPath",
                path: pin_path.into(),
                holder,
                what_else: "another pin path",
            })?;
        Ok(Self {
            _cgroup: cgroup_lock,
            _pins: pins,
        })
    }
}

/// Process id and command line of the agent that runs on `cgroup`, if there is one.
pub fn holder_of(cgroup: &Cgroup) -> Option<String> {
    holder(&File::open(lock_file(cgroup).ok()?).ok()?)
}

fn lock_file(cgroup: &Cgroup) -> io::Result<PathBuf> {
    let id = cgroup.id().map_err(io::Error::other)?;
    Ok(Path::new(LOCK_DIRECTORY).join(format!("cgroup-{id}.lock")))
}

fn open_lock_file(path: &Path) -> io::Result<File> {
    private_directory(Path::new(LOCK_DIRECTORY))?;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn open_pin_directory(path: &Path) -> io::Result<File> {
    private_directory(path)?;
    let directory = File::open(path)?;
    let metadata = directory.metadata()?;
    if metadata.uid() != 0 {
        // On a bpffs that all may write to, somebody was faster.
        return Err(io::Error::other(format!(
            "it belongs to user {}, not to root; remove it",
            metadata.uid()
        )));
    }
    directory.set_permissions(Permissions::from_mode(0o700))?;
    Ok(directory)
}

/// Makes `path`, for root only, unless it exists.
fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
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

/// Locks what `open` finds or makes at `path`; the inner error is who has it.
fn lock(
    path: &Path,
    open: impl Fn(&Path) -> io::Result<File>,
    remove: fn(&Path) -> io::Result<()>,
) -> io::Result<Result<Held, String>> {
    loop {
        let file = open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if is_at(&lock, path) => {
                return Ok(Ok(Held {
                    _lock: lock,
                    path: path.into(),
                    remove,
                }));
            }
            // The agent that had it removed it just now.
            Ok(_) => {}
            Err((file, nix::Error::EWOULDBLOCK)) => {
                return Ok(Err(holder(&file).unwrap_or_else(|| {
                    "a process that cannot be seen from here".into()
                })));
            }
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(own), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (own.dev(), own.ino()) == (there.dev(), there.ino())
}

/// Who holds the lock, according to /proc/locks.
fn holder(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino().to_string();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
    }

    fn remove(path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[test]
    fn a_lock_is_had_once_and_leaves_nothing_when_its_holder_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = lock(&path, open, remove).unwrap().unwrap();
        lock(&path, open, remove).unwrap().unwrap_err();
        drop(first);
        assert!(!path.exists());
        lock(&path, open, remove).unwrap().unwrap();
    }

    #[test]
    fn a_lock_on_a_file_that_was_removed_meanwhile_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let removed = std::cell::Cell::new(false);
        let open_late = |path: &Path| {
            let file = open(path)?;
            // As an agent does that ends between this one's open and its lock.
            if !removed.replace(true) {
                fs::remove_file(path)?;
            }
            Ok(file)
        };
        let _held = lock(&path, open_late, remove).unwrap().unwrap();
        lock(&path, open, remove).unwrap().unwrap_err();
    }
}
