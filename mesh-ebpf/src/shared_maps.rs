//! Maps that the programs on the cgroup share with those that steer in each pod's network namespace.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{HashMap, SockHash},
    macros::btf_map,
};
use mesh_common::{InboundKey, InboundPort, InboundProxyKey, Pod};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Enrolled pods by netns cookie.
#[btf_map(name = "pods")]
pub static PODS: HashMap<u64, Pod, 4096, NO_PREALLOC> = HashMap::new();

/// Where servers listen.
#[btf_map(name = "inbound_ports")]
pub static INBOUND_PORTS: HashMap<InboundKey, InboundPort, 32_768, NO_PREALLOC> = HashMap::new();

/// The servers' listening sockets: one of each key, by which they are reached when the agent is down.
#[btf_map(name = "inbound_sockets")]
pub static INBOUND_SOCKETS: SockHash<InboundKey, 32_768> = SockHash::new();

/// The agent's inbound listeners.
#[btf_map(name = "inbound_proxies")]
pub static INBOUND_PROXIES: SockHash<InboundProxyKey, 8192> = SockHash::new();
