//! Typed view of `pod_sockets`: what the kernel measured of pods' own sockets.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use mesh_common::{PodSocketKey, PodSocketStats, pod_socket_direction};

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

/// The map.
pub(super) struct PodSocketMap(Mutex<HashMap<MapData, Bytes<PodSocketKey>, Bytes<PodSocketStats>>>);

impl fmt::Debug for PodSocketMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PodSocketMap")
    }
}

impl PodSocketMap {
    pub fn take(ebpf: &Ebpf) -> Result<Self, KernelError> {
        const NAME: &str = "pod_sockets";
        let map = take(ebpf, NAME)?.try_into().map_err(map_error(NAME))?;
        Ok(Self(Mutex::new(map)))
    }

    /// Removes the entries of a pod that is not enrolled any more: nothing is counted for it.
    pub fn forget_pod(&self, netns_cookie: u64) {
        self.remove_if(|key, _| key.netns_cookie == netns_cookie);
    }

    fn entries(&self) -> Vec<(PodSocketKey, Box<PodSocketStats>)> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .filter_map(Result::ok)
            .map(|(key, stats)| (bytemuck::cast(key), Box::new(bytemuck::cast(stats))))
            .collect()
    }

    fn remove_if(&self, is_obsolete: impl Fn(&PodSocketKey, &PodSocketStats) -> bool) {
        let obsolete = self.entries();
        let obsolete = obsolete.iter().filter(|(key, it)| is_obsolete(key, it));
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in obsolete {
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
        let Ok(now) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else {
            return;
        };
        let Some(oldest) = Duration::from(now).checked_sub(KEPT) else {
            return;
        };
        map.remove_if(|_, stats| Duration::from_nanos(stats.last_at) < oldest);
    }
}
