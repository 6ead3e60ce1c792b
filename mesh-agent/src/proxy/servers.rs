//! The servers of one pod whose HTTP comes through the agent.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use lru::LruCache;

use super::{
    destinations::{Destination, Policy, Server},
    overload::{OverloadControl, OverloadPolicy},
};
use crate::config::{Pod, Protocol};

/// Servers of a pod that are remembered: what is known of others is forgotten.
const MOST: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The servers of one pod.
#[derive(Debug)]
pub struct Servers {
    settings: RwLock<Settings>,
    /// By where they really listen.
    known: Mutex<LruCache<SocketAddr, Arc<Destination>>>,
}

#[derive(Debug)]
struct Settings {
    pod: Arc<str>,
    protocol: Protocol,
    /// Ports of servers that are told their client's address in a header.
    proxy_protocol_ports: Vec<u16>,
    overload: Option<Arc<OverloadControl>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pod: "".into(),
            protocol: Protocol::default(),
            proxy_protocol_ports: Vec::new(),
            overload: None,
        }
    }
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            settings: RwLock::default(),
            known: Mutex::new(LruCache::new(MOST)),
        }
    }
}

impl Servers {
    /// Does as the configuration of the pod says, from now on.
    pub fn apply(&self, pod: &Pod) {
        let mut settings = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let policy = pod.overload.as_ref().map(OverloadPolicy::from);
        let known = settings.overload.take();
        let overload = policy.map(|policy| match known {
            Some(known) if *known.policy() == policy => known,
            _ => Arc::new(OverloadControl::new(policy)),
        });
        *settings = Settings {
            overload,
            pod: pod.name.as_str().into(),
            protocol: pod.capture.inbound_protocol,
            proxy_protocol_ports: pod.capture.proxy_protocol_ports.clone(),
        };
    }

    /// The name of the pod.
    pub fn pod(&self) -> Arc<str> {
        Arc::clone(&self.settings().pod)
    }

    /// What keeps its servers from being asked too much, if anything does.
    pub fn overload(&self) -> Option<Arc<OverloadControl>> {
        self.settings().overload.clone()
    }

    /// What the server on this port speaks.
    pub fn protocol(&self, port: u16) -> Protocol {
        // What follows a header of its own is not looked into.
        if self.speaks_proxy_protocol(port) {
            Protocol::Tcp
        } else {
            self.settings().protocol
        }
    }

    /// Whether the server on this port is told its client's address in a header.
    pub fn speaks_proxy_protocol(&self, port: u16) -> bool {
        self.settings().proxy_protocol_ports.contains(&port)
    }

    /// The server that listens at `address`.
    pub fn server(&self, address: SocketAddr, protocol: Protocol) -> Arc<Destination> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert(address, || {
            Arc::new(Destination::new(
                format!("inbound:{}:{address}", self.settings().pod).into(),
                protocol,
                Arc::new(Policy::inbound()),
                &[Server::only(address)],
                None,
                Instant::now(),
            ))
        });
        Arc::clone(known)
    }

    /// Those that were used.
    pub fn list(&self) -> Vec<Arc<Destination>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(_, server)| Arc::clone(server)).collect()
    }

    fn settings(&self) -> std::sync::RwLockReadGuard<'_, Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }
}
