//! The program that measures pods' own sockets. It is loaded only when that is asked for, and nothing
//! of it is pinned: it goes with the agent, however the agent ends.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, SockOps},
};

use super::{Cgroup, KernelError, Maps, bpf_syscall, kfunc, pod_socket_map::PodSocketMap};
use crate::config::PodSockets;

/// The program, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-pod-sockets"));

/// Its name, beside those of `PROGRAMS`.
pub(super) const PROGRAM: &str = "mesh_pod_socks";

/// The maps that it shares with the programs that redirect.
const SHARED_MAPS: &[&str] = &[
    "pods",
    "sk_storage_map",
    "counters",
    "inbound_ports",
    "inbound_sockets",
    "inbound_proxies",
];

/// `BPF_CGROUP_SOCK_OPS` of include/uapi/linux/bpf.h.
const BPF_CGROUP_SOCK_OPS: u32 = 3;

/// The kernel's functions that the program calls for stamps, and what stands in the object for that; see
/// `tx_stamps.rs` of the kernel half. The last one came with the stamps, in Linux 6.15.
const FUNCTIONS: [(&str, u32); 2] = [
    ("bpf_cast_to_kern_ctx", 0x6d74_6b63),
    ("bpf_sock_ops_enable_tx_tstamp", 0x6d74_7374),
];

/// One in so many sends of a socket is stamped, a power of 2. docs/latency.md has what it costs.
const STAMP_EVERY: u64 = 16;

/// What is measured of pods' own sockets.
#[derive(Clone, Debug)]
pub struct MeasuredSockets {
    /// What the configuration asks for.
    pub asked: PodSockets,
    /// What there is.
    pub measured: PodSockets,
    /// Why that is less.
    pub why_not: Option<String>,
}

impl MeasuredSockets {
    /// As the configuration asks.
    const fn all(asked: PodSockets) -> Self {
        Self {
            asked,
            measured: asked,
            why_not: None,
        }
    }
}

/// The program, attached. Dropping this detaches it, some time later.
#[derive(Debug)]
pub struct Measuring {
    /// Keeps the maps open that are not pinned.
    _ebpf: Ebpf,
    link: OwnedFd,
}

impl Measuring {
    /// Attaches the program to `cgroup`, if `asked` is not `Off`, and gives `maps` what it fills. The
    /// maps must be pinned under `pin_path`. What the kernel does not offer is left out, with the
    /// reason: that nothing is measured is no cause to capture nothing.
    pub fn start(
        maps: &Maps,
        pin_path: &Path,
        cgroup: &Cgroup,
        asked: PodSockets,
    ) -> (Option<Self>, MeasuredSockets) {
        let attach = |functions| Self::attach(maps, pin_path, cgroup, functions);
        let mut why_not = None;
        if asked == PodSockets::Off {
            return (None, MeasuredSockets::all(asked));
        }
        if asked == PodSockets::Stamps {
            match kfunc::ids(FUNCTIONS.map(|(name, _)| name)) {
                Err(missing) => {
                    why_not = Some(format!(
                        "this kernel has no {missing}; stamps need Linux 6.15 or later"
                    ));
                }
                Ok(functions) => match attach(Some(functions)) {
                    Ok(measuring) => return (Some(measuring), MeasuredSockets::all(asked)),
                    Err(error) => why_not = Some(first_line(&error)),
                },
            }
        }
        let (measuring, measured) = match attach(None) {
            Ok(measuring) => (Some(measuring), PodSockets::Rtt),
            Err(error) => {
                why_not = Some(first_line(&error));
                (None, PodSockets::Off)
            }
        };
        let measured = MeasuredSockets {
            asked,
            measured,
            why_not,
        };
        (measuring, measured)
    }

    /// With the numbers of the kernel's functions for stamps, or without stamps.
    fn attach(
        maps: &Maps,
        pin_path: &Path,
        cgroup: &Cgroup,
        functions: Option<[u32; FUNCTIONS.len()]>,
    ) -> Result<Self, KernelError> {
        let ebpf = load(pin_path, functions)?;
        let program = ebpf.program(PROGRAM).ok_or(KernelError::Missing(PROGRAM))?;
        let program = program.fd().map_err(program_error)?.as_fd();
        let map = PodSocketMap::take(&ebpf)?;
        let link = bpf_syscall::create_link(program, cgroup.as_fd(), BPF_CGROUP_SOCK_OPS)
            .map_err(|source| program_error(ProgramError::IOError(source)))?;
        // There is none yet: of the attempts at start one succeeds at most.
        let _first = maps.pod_sockets.set(map);
        Ok(Self { _ebpf: ebpf, link })
    }

    /// Detaches it at once.
    pub fn detach(self) {
        if let Err(error) = bpf_syscall::detach_link(self.link.as_fd()) {
            // It goes with the descriptor as well.
            tracing::debug!("{PROGRAM}: {error}");
        }
    }
}

fn load(pin_path: &Path, functions: Option<[u32; FUNCTIONS.len()]>) -> Result<Ebpf, KernelError> {
    // Whole words, as long as the object: aligned as both the loader and the instructions want it.
    let mut object = vec![0_u64; OBJECT.len().div_ceil(size_of::<u64>())];
    bytemuck::cast_slice_mut(&mut object)[..OBJECT.len()].copy_from_slice(OBJECT);
    for (index, (name, stand_in)) in FUNCTIONS.into_iter().enumerate() {
        let id = functions.map(|ids| ids[index]);
        if kfunc::put_in(&mut object, stand_in, id) == 0 {
            return Err(KernelError::Missing(name));
        }
    }
    let object = &bytemuck::cast_slice(&object)[..OBJECT.len()];
    let stamps = u64::from(functions.is_some());
    let pins: Vec<PathBuf> = SHARED_MAPS.iter().map(|map| pin_path.join(map)).collect();
    let mut loader = EbpfLoader::new();
    loader
        .override_global("STAMPS", &stamps, true)
        .override_global("STAMP_EVERY", &STAMP_EVERY, true);
    for (map, pin) in SHARED_MAPS.iter().zip(&pins) {
        loader.map_pin_path(map, pin.as_path());
    }
    let mut ebpf = loader
        .load(object)
        .map_err(|source| KernelError::Load(Box::new(source)))?;
    let program = ebpf
        .program_mut(PROGRAM)
        .ok_or(KernelError::Missing(PROGRAM))?;
    let program: &mut SockOps = program.try_into().map_err(program_error)?;
    program.load().map_err(program_error)?;
    Ok(ebpf)
}

/// The rest is what the verifier went through.
fn first_line(error: &KernelError) -> String {
    tracing::debug!("{error}");
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn program_error(source: ProgramError) -> KernelError {
    KernelError::Program {
        program: PROGRAM,
        source: Box::new(source),
    }
}
