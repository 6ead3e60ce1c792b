//! Typed view of `pod_sockets`: what the kernel measured of pods' own sockets.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use mesh_common::{PodSocketKey, PodSocketStats, pod_socket_direction};
use nix::time::{ClockId, clock_gettime};

use super::{
    KernelError, Maps,
    maps::{AsBytes, map_error, socket_address, take},
};

type Bytes<T> = <T as AsBytes>::Array;

/// How long an entry is kept after anything was counted there.
const KEPT: Duration = Duration::from_mins(15);

/// An entry of `pod_sockets`, readable.
#[derive(Clone, Debug)]
pub struct PodSocketEntry {
    /// Cookie of the pod's network namespace.
    pub netns_cookie: u64,
    /// Where the pod connected to; `None` for connections to its own server.
    pub server: Option<SocketAddr>,
    /// The server's port.
    pub port: u16,
    /// What was measured.
    pub stats: Box<PodSocketStats>,
}

/// How often entries are looked at for that.
const LOOKED_AT_EVERY: Duration = Duration::from_mins(1);

/// The map.
pub(super) struct PodSocketMap {
    map: Mutex<HashMap<MapData, Bytes<PodSocketKey>, Bytes<PodSocketStats>>>,
    /// When all were last looked at, seconds of `CLOCK_MONOTONIC`.
    looked_at: AtomicU64,
}

impl fmt::Debug for PodSocketMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PodSocketMap")
    }
}

impl PodSocketMap {
    pub fn take(ebpf: &Ebpf) -> Result<Self, KernelError> {
        const NAME: &str = "pod_sockets";
        let map = take(ebpf, NAME)?.try_into().map_err(map_error(NAME))?;
        Ok(Self {
            map: Mutex::new(map),
            looked_at: AtomicU64::new(0),
        })
    }

    /// Removes the entries of a pod that is not enrolled any more: nothing is counted for it.
    pub fn forget_pod(&self, netns_cookie: u64) {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<PodSocketKey> = map
            .keys()
            .filter_map(Result::ok)
            .map(bytemuck::cast)
            .filter(|key: &PodSocketKey| key.netns_cookie == netns_cookie)
            .collect();
        drop(map);
        self.remove(keys.iter());
    }

    /// Removes those that nothing was counted for since long before `now`, if it is time to look.
    fn prune(&self, now: Duration) {
        let looked_at = Duration::from_secs(self.looked_at.load(Ordering::Relaxed));
        if now.saturating_sub(looked_at) < LOOKED_AT_EVERY {
            return;
        }
        self.looked_at.store(now.as_secs(), Ordering::Relaxed);
        let is_old =
            |stats: &PodSocketStats| now.saturating_sub(Duration::from_nanos(stats.last_at)) > KEPT;
        let entries = self.entries();
        let old = entries.iter().filter(|(_, stats)| is_old(stats));
        self.remove(old.map(|(key, _)| key));
    }

    fn entries(&self) -> Vec<(PodSocketKey, Box<PodSocketStats>)> {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .filter_map(Result::ok)
            .map(|(key, stats)| (bytemuck::cast(key), Box::new(bytemuck::cast(stats))))
            .collect()
    }

    fn remove<'a>(&self, keys: impl Iterator<Item = &'a PodSocketKey>) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            // Gone already is as good.
            let _gone = map.remove(&bytemuck::cast(*key));
        }
    }
}

impl Maps {
    /// What the kernel measured of pods' own sockets; empty if it does not.
    pub fn pod_sockets(&self) -> Vec<PodSocketEntry> {
        let entries = self.pod_sockets.get().map(PodSocketMap::entries);
        entries
            .into_iter()
            .flatten()
            .map(|(key, stats)| PodSocketEntry {
                netns_cookie: key.netns_cookie,
                server: (key.direction == pod_socket_direction::OUTBOUND)
                    .then(|| socket_address(key.address, key.port as u16)),
                port: key.port as u16,
                stats,
            })
            .collect()
    }

    /// Makes room in `pod_sockets`: removes where nothing was counted for long.
    pub fn prune_pod_sockets(&self) {
        let Some(map) = self.pod_sockets.get() else {
            return;
        };
        if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
            map.prune(now.into());
        }
    }
}
