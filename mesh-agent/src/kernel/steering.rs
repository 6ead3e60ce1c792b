//! The program that steers connections to a pod's servers to the agent, in the pod's own network
//! namespace.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, SkLookup},
};

use super::{
    KernelError, Maps, bpf_syscall,
    pins::{detach, remove_pin, steering_pin, steering_pins},
};

/// The program, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-steering"));

const PROGRAM: &str = "mesh_steer";

/// The maps that it shares with the programs on the cgroup.
const SHARED_MAPS: &[&str] = &[
    "pods",
    "inbound_ports",
    "inbound_sockets",
    "inbound_proxies",
];

/// `BPF_SK_LOOKUP` of include/uapi/linux/bpf.h.
const BPF_SK_LOOKUP: u32 = 36;

/// The steering program of one network namespace, attached. Dropped, it is detached, unless servers
/// in the pod could not be reached without it: those that were bound to loopback stay bound there.
#[derive(Debug)]
pub struct Steering {
    maps: Arc<Maps>,
    netns_cookie: u64,
    pin: PathBuf,
}

impl Steering {
    /// Sees whether the kernel takes the program; attaches nothing and pins nothing.
    pub fn try_load() -> Result<(), KernelError> {
        load(&mut EbpfLoader::new()).map(drop)
    }

    /// Attaches it, or takes over what an earlier run left. The maps must be pinned under `pin_path`.
    pub fn attach(
        maps: &Arc<Maps>,
        pin_path: &Path,
        netns: BorrowedFd<'_>,
        netns_cookie: u64,
    ) -> Result<Self, KernelError> {
        let pin = steering_pin(pin_path, netns_cookie);
        let pins: Vec<PathBuf> = SHARED_MAPS.iter().map(|map| pin_path.join(map)).collect();
        let mut loader = EbpfLoader::new();
        loader.override_global("NETNS_COOKIE", &netns_cookie, true);
        for (map, pin) in SHARED_MAPS.iter().zip(&pins) {
            loader.map_pin_path(map, pin.as_path());
        }
        let ebpf = load(&mut loader)?;
        let program = ebpf.program(PROGRAM).ok_or(KernelError::Missing(PROGRAM))?;
        let program = program.fd().map_err(program_error)?.as_fd();
        let switched = bpf_syscall::open_pin(&pin)
            .and_then(|link| bpf_syscall::update_link(link.as_fd(), program));
        if switched.is_err() {
            let pin_error = |source| KernelError::Pin {
                path: pin.clone(),
                source,
            };
            remove_pin(&pin).map_err(pin_error)?;
            let link = bpf_syscall::create_link(program, netns, BPF_SK_LOOKUP)
                .map_err(|source| KernelError::Steering { source })?;
            bpf_syscall::pin(link.as_fd(), &pin).map_err(pin_error)?;
        }
        Ok(Self {
            maps: Arc::clone(maps),
            netns_cookie,
            pin,
        })
    }
}

fn load(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, KernelError> {
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|source| KernelError::Load(Box::new(source)))?;
    let program = ebpf
        .program_mut(PROGRAM)
        .ok_or(KernelError::Missing(PROGRAM))?;
    let program: &mut SkLookup = program.try_into().map_err(program_error)?;
    program.load().map_err(program_error)?;
    Ok(ebpf)
}

fn program_error(source: ProgramError) -> KernelError {
    KernelError::Program {
        program: PROGRAM,
        source: Box::new(source),
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        let servers = self.maps.rewritten_servers(self.netns_cookie);
        if !servers.is_empty() {
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            tracing::warn!(
                "left {} in place: without it the servers on {} could not be reached, as they were \
                 bound to loopback; restart them, or the agent, and it goes",
                self.pin.display(),
                servers.join(", ")
            );
            return;
        }
        if let Err(error) = detach(&self.pin) {
            tracing::error!("{}: {error}", self.pin.display());
        }
        self.maps.forget_servers(self.netns_cookie);
    }
}

/// Removes what earlier runs left in namespaces that are not `used` and whose servers do not need it.
pub fn sweep_steering(maps: &Maps, pin_path: &Path, used: impl Fn(u64) -> bool) {
    for (cookie, pin) in steering_pins(pin_path) {
        let is_gone = bpf_syscall::open_pin(&pin)
            .and_then(|link| bpf_syscall::link_netns(link.as_fd()))
            .is_ok_and(|netns| netns == 0);
        if !is_gone && (used(cookie) || !maps.rewritten_servers(cookie).is_empty()) {
            continue;
        }
        if let Err(error) = detach(&pin) {
            tracing::error!("{}: {error}", pin.display());
        }
        maps.forget_servers(cookie);
    }
}
