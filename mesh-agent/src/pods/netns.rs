//! A pod's network namespace, and doing things inside it.

use std::{
    collections::HashMap,
    fs::{File, Metadata, OpenOptions},
    io,
    net::Ipv6Addr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use mesh_common::token_address6;
use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};
use socket2::{Domain, Socket, Type};
use thiserror::Error;

use super::{socket_options, token_route};

/// The namespace this process was started in. Opened before any thread enters another.
static HOME: LazyLock<io::Result<File>> = LazyLock::new(|| File::open("/proc/self/ns/net"));

/// Which namespace it is: the same for every path that leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsIdentity {
    device: u64,
    inode: u64,
}

impl NetnsIdentity {
    /// The namespace at `path`, if there is anything.
    pub fn of_path(path: &Path) -> Option<Self> {
        std::fs::metadata(path)
            .ok()
            .map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
    identity: NetnsIdentity,
    cookie: u64,
    /// Whether this counts as a user of the route of [`token_route`]. The last connection of a pod
    /// holds its namespace open, and with it the route.
    uses_token_route: AtomicBool,
}

/// Why a path could not be used as a pod's network namespace.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// Nothing there (yet): the pod may still come.
    #[error("{0}: there is no such network namespace yet")]
    Missing(PathBuf),
    /// Something else is there.
    #[error(
        "{0}: not a network namespace; name a file such as /run/netns/NAME or /proc/PID/ns/net"
    )]
    NotANetns(PathBuf),
    /// The agent's own namespace: capturing it would capture the node.
    #[error(
        "{0}: this is the agent's own network namespace; only pods with their own can be enrolled"
    )]
    Own(PathBuf),
    /// The kernel said no.
    #[error("{path}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Netns {
    /// Opens the network namespace at `path`.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let system = |source: io::Error| NetnsError::System {
            path: path.into(),
            source,
        };
        // Opening a FIFO would wait for somebody to write to it.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => NetnsError::Missing(path.into()),
                _ => system(source),
            })?;
        let kind = fstatfs(&file)
            .map_err(|errno| system(errno.into()))?
            .filesystem_type();
        // `ip netns add` makes an empty file first and mounts the namespace over it: not an error,
        // just not there yet.
        let metadata = file.metadata().map_err(system)?;
        if kind != NSFS_MAGIC {
            return Err(
                if metadata.is_file() && metadata.len() == 0 && is_netns_directory(path) {
                    NetnsError::Missing(path.into())
                } else {
                    NetnsError::NotANetns(path.into())
                },
            );
        }
        let home = HOME
            .as_ref()
            .map_err(|error| system(io::Error::new(error.kind(), error.to_string())))?;
        let home = home.metadata().map_err(system)?;
        let identity = NetnsIdentity::of(&metadata);
        if identity == NetnsIdentity::of(&home) {
            return Err(NetnsError::Own(path.into()));
        }
        let mut netns = Self {
            path: path.into(),
            file,
            identity,
            cookie: 0,
            uses_token_route: AtomicBool::new(false),
        };
        netns.cookie = netns
            .enter(|| {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
                socket_options::netns_cookie(&socket)
            })
            .map_err(|source| match source.raw_os_error() {
                // setns refuses namespaces of other kinds with EINVAL.
                Some(libc::EINVAL) => NetnsError::NotANetns(path.into()),
                _ => system(source),
            })?;
        Ok(netns)
    }

    /// Runs `action` on this thread inside the namespace and comes back. Sockets made there stay
    /// there for good. `action` must not await: another task would run in the wrong namespace.
    ///
    /// If the way back fails the process ends: this thread would go on serving other pods from
    /// inside this one.
    pub fn enter<T>(&self, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = HOME
            .as_ref()
            .map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        setns(&self.file, CloneFlags::CLONE_NEWNET)?;
        let result = action();
        if let Err(error) = setns(home, CloneFlags::CLONE_NEWNET) {
            tracing::error!(
                "cannot leave the network namespace {}: {error}",
                self.path.display()
            );
            std::process::abort();
        }
        result
    }

    /// Whether the IPv6 addresses that stand for destinations are local to the pod; makes them so if
    /// it can be done.
    pub fn ensure_token_route(&self) -> io::Result<bool> {
        let mut users = token_route_users();
        let is_there = self.enter(token_route::ensure)?;
        if is_there && !self.uses_token_route.swap(true, Ordering::Relaxed) {
            *users.entry(self.identity).or_default() += 1;
        }
        Ok(is_there)
    }

    fn release_token_route(&self) -> io::Result<()> {
        let mut users = token_route_users();
        let Some(count) = users.get_mut(&self.identity) else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        users.remove(&self.identity);
        self.enter(token_route::remove)
    }

    /// Which namespace it is.
    pub const fn identity(&self) -> NetnsIdentity {
        self.identity
    }

    /// Its cookie: how the kernel half knows it.
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if *self.uses_token_route.get_mut()
            && let Err(error) = self.release_token_route()
        {
            tracing::warn!(
                "{}: cannot take back the local route to {}: {error}",
                self.path.display(),
                Ipv6Addr::from(token_address6(0)),
            );
        }
    }
}

/// How many open namespaces use each route: a pod may be enrolled anew while connections of before
/// are still open.
fn token_route_users() -> MutexGuard<'static, HashMap<NetnsIdentity, usize>> {
    static USERS: LazyLock<Mutex<HashMap<NetnsIdentity, usize>>> = LazyLock::new(Mutex::default);
    USERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers the agent's own namespace; call before any other thread starts.
pub fn remember_own() -> io::Result<()> {
    HOME.as_ref()
        .map(drop)
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

fn is_netns_directory(path: &Path) -> bool {
    path.parent()
        .is_some_and(|parent| parent.ends_with("netns"))
}
