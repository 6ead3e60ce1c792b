//! Typed views of the maps. Values cross as plain bytes, checked by bytemuck.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Mutex, OnceLock, PoisonError},
};

use aya::{
    Ebpf,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
};
use ipnet::IpNet;
use mesh_common::{
    COUNTERS, DATAGRAM_PORT, ExclusionData, InboundKey, InboundPort, InboundProxyKey, Origin,
    OriginKey, PROTOCOL_TCP, Pod, PodSocketKey, PodSocketStats, SocketRole, SocketState,
};

use super::{KernelError, bpf_syscall, inbound::InboundMaps, pod_socket_map::PodSocketMap};

type Bytes<T> = <T as AsBytes>::Array;

/// A shared type as the byte array of its size, which is what aya accepts without more `unsafe`.
pub trait AsBytes {
    /// `[u8; size_of::<Self>()]`.
    type Array: aya::Pod + bytemuck::Pod;
}

macro_rules! as_bytes {
    ($($type:ty),+) => { $(impl AsBytes for $type { type Array = [u8; size_of::<$type>()]; })+ };
}

as_bytes!(
    Pod,
    OriginKey,
    Origin,
    ExclusionData,
    InboundKey,
    InboundPort,
    InboundProxyKey,
    PodSocketKey,
    PodSocketStats
);

/// An entry of `origin_dst_map`, readable.
#[derive(Clone, Debug)]
pub struct OriginEntry {
    /// Cookie of the pod's network namespace.
    pub netns_cookie: u64,
    /// The app's end.
    pub client: SocketAddr,
    /// The proxy's end.
    pub proxy: SocketAddr,
    /// Where the app wanted to go.
    pub destination: SocketAddr,
    /// Process that called connect.
    pub process: u32,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub connected_at: u64,
}

/// What a pod excludes.
#[derive(Clone, Copy, Debug)]
pub struct Excluded<'a> {
    /// Destination networks.
    pub ranges: &'a [IpNet],
    /// Destination ports.
    pub ports: &'a [u16],
    /// Ports of servers in the pod.
    pub inbound_ports: &'a [u16],
}

/// The maps that user space reads and writes.
pub struct Maps {
    pods: Mutex<HashMap<MapData, u64, Bytes<Pod>>>,
    exclusions: Mutex<LpmTrie<MapData, Bytes<ExclusionData>, u32>>,
    origins: HashMap<MapData, Bytes<OriginKey>, Bytes<Origin>>,
    counters: PerCpuArray<MapData, u64>,
    sk_storage: MapData,
    pub(super) inbound: InboundMaps,
    /// Once the program that fills it is loaded.
    pub(super) pod_sockets: OnceLock<PodSocketMap>,
}

pub(super) fn map_error(map: &'static str) -> impl Fn(MapError) -> KernelError {
    move |source| KernelError::Map { map, source }
}

/// A second descriptor of a map: the object keeps its own, for pinning.
pub(super) fn take(ebpf: &Ebpf, name: &'static str) -> Result<Map, KernelError> {
    let Some(
        Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::SkStorage(data)
        | Map::SockHash(data)
        | Map::RingBuf(data),
    ) = ebpf.map(name)
    else {
        return Err(KernelError::Missing(name));
    };
    let fd = data
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| KernelError::Map {
            map: name,
            source: MapError::IoError(error),
        })?;
    let data = MapData::from_fd(fd).map_err(map_error(name))?;
    Map::from_map_data(data).map_err(map_error(name))
}

impl fmt::Debug for Maps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Maps")
    }
}

impl Maps {
    pub(super) fn take(ebpf: &Ebpf) -> Result<Self, KernelError> {
        let Map::SkStorage(sk_storage) = take(ebpf, "sk_storage_map")? else {
            return Err(KernelError::Missing("sk_storage_map"));
        };
        Ok(Self {
            pods: Mutex::new(take(ebpf, "pods")?.try_into().map_err(map_error("pods"))?),
            exclusions: Mutex::new(
                take(ebpf, "exclusions")?
                    .try_into()
                    .map_err(map_error("exclusions"))?,
            ),
            origins: take(ebpf, "origin_dst_map")?
                .try_into()
                .map_err(map_error("origin_dst_map"))?,
            counters: take(ebpf, "counters")?
                .try_into()
                .map_err(map_error("counters"))?,
            sk_storage,
            inbound: InboundMaps::take(ebpf)?,
            pod_sockets: OnceLock::new(),
        })
    }

    /// Enrols a pod, or changes how it is enrolled.
    pub fn set_pod(&self, netns_cookie: u64, pod: &Pod) -> Result<(), KernelError> {
        let value: Bytes<Pod> = bytemuck::cast(*pod);
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(netns_cookie, value, 0)
            .map_err(map_error("pods"))
    }

    /// Un-enrols a pod; fine if it is not enrolled.
    pub fn remove_pod(&self, netns_cookie: u64) -> Result<(), KernelError> {
        ignore_missing(
            self.pods
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&netns_cookie),
        )
        .map_err(map_error("pods"))?;
        if let Some(map) = self.pod_sockets.get() {
            map.forget_pod(netns_cookie);
        }
        Ok(())
    }

    /// Enrolled pods: netns cookie and entry.
    pub fn pods(&self) -> Vec<(u64, Pod)> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.iter()
            .filter_map(Result::ok)
            .map(|(cookie, pod)| (cookie, bytemuck::cast(pod)))
            .collect()
    }

    /// Excludes these for the pods with this exclusions id.
    pub fn add_exclusions(
        &self,
        exclusions_id: u32,
        excluded: Excluded<'_>,
    ) -> Result<(), KernelError> {
        let mut map = self
            .exclusions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (bits, data) in exclusion_keys(exclusions_id, excluded) {
            map.insert(&Key::new(bits, bytemuck::cast(data)), 1, 0)
                .map_err(map_error("exclusions"))?;
        }
        Ok(())
    }

    /// Takes back what [`Maps::add_exclusions`] added.
    pub fn remove_exclusions(
        &self,
        exclusions_id: u32,
        excluded: Excluded<'_>,
    ) -> Result<(), KernelError> {
        let mut map = self
            .exclusions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (bits, data) in exclusion_keys(exclusions_id, excluded) {
            ignore_missing(map.remove(&Key::new(bits, bytemuck::cast(data))))
                .map_err(map_error("exclusions"))?;
        }
        Ok(())
    }

    /// Removes every exclusion of ids that `is_stale` names: leftovers of an earlier run.
    pub fn sweep_exclusions(&self, is_stale: impl Fn(u32) -> bool) -> Result<(), KernelError> {
        let mut map = self
            .exclusions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let stale: Vec<_> = map
            .keys()
            .filter_map(Result::ok)
            .filter(|key| {
                let data = key.data();
                let data: ExclusionData = bytemuck::cast(data);
                is_stale(data.exclusions_id)
            })
            .collect();
        for key in stale {
            ignore_missing(map.remove(&key)).map_err(map_error("exclusions"))?;
        }
        Ok(())
    }

    /// Marks one of the agent's own sockets; nobody without the map's descriptor can.
    pub fn mark_socket(&self, socket: BorrowedFd<'_>, role: SocketRole) -> std::io::Result<()> {
        self.set_socket_state(socket, &SocketState::own(role))
    }

    pub(super) fn set_socket_state(
        &self,
        socket: BorrowedFd<'_>,
        state: &SocketState,
    ) -> std::io::Result<()> {
        bpf_syscall::update_socket_storage(
            self.sk_storage.fd().as_fd(),
            socket,
            bytemuck::bytes_of(state),
        )
    }

    /// Every counter with its name and what it counts, summed over the CPUs.
    pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        COUNTERS
            .iter()
            .map(|&(counter, name, help)| {
                let sum = self
                    .counters
                    .get(&(counter as u32), 0)
                    .map_or(0, |values| values.iter().sum());
                (name, help.trim(), sum)
            })
            .collect()
    }

    /// Redirected connections that are open now.
    pub fn origins(&self) -> Vec<OriginEntry> {
        self.origins
            .iter()
            .filter_map(Result::ok)
            .map(|(key, origin)| (bytemuck::cast(key), bytemuck::cast(origin)))
            .filter(|(key, _): &(OriginKey, Origin)| key.protocol == PROTOCOL_TCP)
            .map(|(key, origin)| readable(key, origin))
            .collect()
    }

    /// Where an app wanted a datagram to go that came to the agent at `token`; `None` if it was not
    /// redirected, or its socket is closed by now.
    pub fn datagram_origin(&self, netns_cookie: u64, token: IpAddr) -> Option<SocketAddr> {
        let token = match token {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let key = OriginKey::datagrams(netns_cookie, token.octets(), DATAGRAM_PORT);
        let origin = self.origins.get(&bytemuck::cast(key), 0).ok()?;
        let origin: Origin = bytemuck::cast(origin);
        Some(socket_address(origin.address, origin.port))
    }
}

fn exclusion_keys(
    exclusions_id: u32,
    excluded: Excluded<'_>,
) -> impl Iterator<Item = (u32, ExclusionData)> {
    let Excluded {
        ranges,
        ports,
        inbound_ports,
    } = excluded;
    let ranges = ranges.iter().map(IpNet::trunc).map(move |range| {
        let (address, bits) = match range.addr() {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 96 + u32::from(range.prefix_len())),
            IpAddr::V6(address) => (address, u32::from(range.prefix_len())),
        };
        let data = ExclusionData::cidr(exclusions_id, address.octets());
        (ExclusionData::FIXED_BITS + bits, data)
    });
    let ports = ports.iter().map(move |&port| {
        (
            ExclusionData::PORT_BITS,
            ExclusionData::port(exclusions_id, port),
        )
    });
    let inbound_ports = inbound_ports.iter().map(move |&port| {
        (
            ExclusionData::PORT_BITS,
            ExclusionData::inbound_port(exclusions_id, port),
        )
    });
    ranges.chain(ports).chain(inbound_ports)
}

fn readable(key: OriginKey, origin: Origin) -> OriginEntry {
    OriginEntry {
        netns_cookie: key.netns_cookie,
        client: socket_address(key.client_address, key.client_port),
        proxy: socket_address(key.proxy_address, key.proxy_port),
        destination: socket_address(origin.address, origin.port),
        process: origin.process,
        connected_at: origin.connected_at,
    }
}

pub(super) fn socket_address(address: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port)
}

fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}
