//! Typed views of the maps about servers in pods.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, SockHash},
};
use mesh_common::{
    InboundKey, InboundPort, InboundProxyKey, Origin, SocketRole, SocketState, inbound_flags,
};

use super::{
    KernelError, Maps,
    maps::{AsBytes, map_error, socket_address, take},
};

type Bytes<T> = <T as AsBytes>::Array;

/// A socket that listens in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Where.
    pub address: SocketAddr,
    /// Whether it takes no IPv4 though it is bound to `::`.
    pub only_ipv6: bool,
}

impl Server {
    fn key(self, netns_cookie: u64) -> InboundKey {
        let address = match self.address.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        InboundKey::new(netns_cookie, address.octets(), self.address.port())
    }
}

/// A server as `inbound_ports` has it.
#[derive(Clone, Copy, Debug)]
pub struct KnownServer {
    key: InboundKey,
    port: InboundPort,
}

/// The maps about servers in pods.
pub(super) struct InboundMaps {
    ports: Mutex<HashMap<MapData, Bytes<InboundKey>, Bytes<InboundPort>>>,
    proxies: Mutex<SockHash<MapData, Bytes<InboundProxyKey>>>,
}

impl InboundMaps {
    pub fn take(ebpf: &Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            ports: Mutex::new(
                take(ebpf, "inbound_ports")?
                    .try_into()
                    .map_err(map_error("inbound_ports"))?,
            ),
            proxies: Mutex::new(
                take(ebpf, "inbound_proxies")?
                    .try_into()
                    .map_err(map_error("inbound_proxies"))?,
            ),
        })
    }

    fn get(&self, key: &InboundKey) -> Option<InboundPort> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get(&bytemuck::cast(*key), 0).ok().map(bytemuck::cast)
    }

    fn of_pod(&self, netns_cookie: u64) -> Vec<(InboundKey, InboundPort)> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports
            .iter()
            .filter_map(Result::ok)
            .map(|(key, port)| (bytemuck::cast(key), bytemuck::cast(port)))
            .filter(|(key, _): &(InboundKey, InboundPort)| key.netns_cookie == netns_cookie)
            .collect()
    }

    fn unused(&self) -> Vec<InboundKey> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports
            .iter()
            .filter_map(Result::ok)
            .map(|(key, port)| (bytemuck::cast(key), bytemuck::cast(port)))
            .filter(|(_, port): &(InboundKey, InboundPort)| port.listeners == 0)
            .map(|(key, _)| key)
            .collect()
    }

    /// `false` if there is one already, or no room.
    fn add(&self, key: &InboundKey, port: &InboundPort) -> bool {
        const BPF_NOEXIST: u64 = 1;
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let value: Bytes<InboundPort> = bytemuck::cast(*port);
        ports
            .insert(
                bytemuck::cast::<_, Bytes<InboundKey>>(*key),
                value,
                BPF_NOEXIST,
            )
            .is_ok()
    }

    fn remove(&self, key: &InboundKey) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        // Gone already is as good.
        let _gone = ports.remove(&bytemuck::cast(*key));
    }
}

impl Maps {
    /// Steers what comes from outside to servers in the pod to this listener.
    pub fn set_inbound_listener(
        &self,
        netns_cookie: u64,
        listener: impl AsRawFd,
        is_ipv4: bool,
    ) -> Result<(), KernelError> {
        let key: Bytes<InboundProxyKey> = bytemuck::cast(InboundProxyKey {
            netns_cookie,
            ip_version: if is_ipv4 { 4 } else { 6 },
            reserved: 0,
        });
        self.inbound
            .proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, listener, 0)
            .map_err(map_error("inbound_proxies"))
    }

    /// Where the server really listens that a client wanted at `local`.
    pub fn inbound_target(&self, netns_cookie: u64, local: SocketAddr) -> Option<SocketAddr> {
        let mapped = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let every4 = local
            .is_ipv4()
            .then(|| Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
        let asked = [
            Some(mapped(local.ip())),
            every4,
            Some(Ipv6Addr::UNSPECIFIED),
        ];
        let server = asked.into_iter().flatten().find_map(|address| {
            let key = InboundKey::new(netns_cookie, address.octets(), local.port());
            self.inbound
                .get(&key)
                .filter(|server| server.listeners != 0)
        })?;
        let target = socket_address(server.target, local.port());
        Some(if target.ip().is_unspecified() {
            let loopback = match local {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            SocketAddr::new(loopback, local.port())
        } else {
            target
        })
    }

    /// Marks the agent's connection to a server in the pod, made for `client`, which connected to
    /// `local`: the server will see these addresses.
    pub fn mark_inbound_socket(
        &self,
        socket: BorrowedFd<'_>,
        client: SocketAddr,
        local: SocketAddr,
    ) -> io::Result<()> {
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let own = SocketState::own(SocketRole::InboundUpstream);
        self.set_socket_state(
            socket,
            &SocketState {
                origin: Origin {
                    address: octets(client),
                    port: client.port(),
                    ..own.origin
                },
                proxy_address: octets(local),
                proxy_port: local.port(),
                ..own
            },
        )
    }

    /// Where servers in the pod listen, as they asked for it.
    pub fn servers(&self, netns_cookie: u64) -> Vec<SocketAddr> {
        self.servers_of(netns_cookie, |_| true)
    }

    /// The servers of these that were bound to loopback instead.
    pub(super) fn rewritten_servers(&self, netns_cookie: u64) -> Vec<SocketAddr> {
        self.servers_of(netns_cookie, |server| {
            server.flags & inbound_flags::REWRITTEN != 0
        })
    }

    fn servers_of(
        &self,
        netns_cookie: u64,
        is_meant: impl Fn(&InboundPort) -> bool,
    ) -> Vec<SocketAddr> {
        let servers = self.inbound.of_pod(netns_cookie).into_iter();
        let mut listening: Vec<SocketAddr> = servers
            .filter(|(_, server)| server.listeners != 0 && is_meant(server))
            .map(|(key, _)| {
                SocketAddr::new(Ipv6Addr::from(key.address).to_canonical(), key.port as u16)
            })
            .collect();
        listening.sort_unstable();
        listening
    }

    /// What is known of servers in the pod, to be held against what listens afterwards.
    pub fn servers_known(&self, netns_cookie: u64) -> Vec<KnownServer> {
        let servers = self.inbound.of_pod(netns_cookie).into_iter();
        servers
            .map(|(key, port)| KnownServer { key, port })
            .collect()
    }

    /// Forgets those that an earlier run left and that do not listen any more; gives those that it
    /// had found.
    pub fn forget_stale_servers(
        &self,
        known: Vec<KnownServer>,
        listening: &[Server],
    ) -> HashSet<Server> {
        let mut found = HashSet::new();
        for KnownServer { key, port } in known {
            let target = socket_address(port.target, key.port as u16);
            let server = listening.iter().find(|server| server.address == target);
            match server {
                None => self.inbound.remove(&key),
                Some(server) if port.flags & inbound_flags::FOUND != 0 => {
                    found.insert(*server);
                }
                Some(_) => {}
            }
        }
        found
    }

    /// Adds a server that listens already; `false` if the kernel half knows it.
    pub fn add_found_server(&self, netns_cookie: u64, server: Server) -> bool {
        let key = server.key(netns_cookie);
        let only_ipv6 = u32::from(server.only_ipv6) * inbound_flags::ONLY_IPV6;
        let port = InboundPort {
            listeners: 1,
            target: key.address,
            flags: inbound_flags::FOUND | only_ipv6,
            reserved: 0,
        };
        if self
            .inbound
            .get(&key)
            .is_some_and(|port| port.listeners == 0)
        {
            self.inbound.remove(&key);
        }
        self.inbound.add(&key, &port)
    }

    /// Forgets a server that was found and does not listen any more.
    pub fn forget_server(&self, netns_cookie: u64, server: Server) {
        self.inbound.remove(&server.key(netns_cookie));
    }

    /// Forgets where no server listens any more.
    pub fn prune_servers(&self) {
        for key in self.inbound.unused() {
            self.inbound.remove(&key);
        }
    }

    /// Forgets all servers of a pod.
    pub(super) fn forget_servers(&self, netns_cookie: u64) {
        for (key, _) in self.inbound.of_pod(netns_cookie) {
            self.inbound.remove(&key);
        }
    }
}
