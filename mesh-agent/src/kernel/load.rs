//! Loading the embedded object, with the maps of an earlier run where they fit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapData,
    programs::{CgroupSock, CgroupSockAddr, CgroupSockopt, SockOps},
};
use mesh_common::{Origin, OriginKey, Pod, SocketState};

use super::{KernelError, Maps, PROGRAMS};

/// The kernel half, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-ebpf"));

/// Room kept in `origin_dst_map` for handshakes that are under way when it counts as full.
const fn handshake_margin(max_connections: u32) -> u32 {
    let eighth = max_connections / 8;
    if eighth < 8192 { eighth } else { 8192 }
}

/// Maps that are pinned, and outlive the agent: with it gone the programs still need them.
pub(super) const PINNED_MAPS: &[&str] = &[
    "pods",
    "sk_storage_map",
    "origin_dst_map",
    "origin_count",
    "exclusions",
    "counters",
    "events",
];

/// The loaded programs, not yet attached.
#[derive(Debug)]
pub struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) pin_path: PathBuf,
    /// Whether the maps are those of an earlier run.
    pub takes_over: bool,
}

impl Loaded {
    /// Loads the object. Maps pinned under `pin_path` are taken over if all have today's shape.
    pub fn load(pin_path: &Path, max_connections: u32) -> Result<Self, KernelError> {
        let limit = u64::from(max_connections - handshake_margin(max_connections));
        let pins: Vec<(&str, PathBuf)> = PINNED_MAPS
            .iter()
            .map(|&map| (map, pin_path.join(map)))
            .collect();
        let takes_over = pins_fit(pin_path, max_connections);
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("origin_dst_map", max_connections)
            .override_global("ORIGIN_LIMIT", &limit, true);
        if takes_over {
            for (map, pin) in &pins {
                loader.map_pin_path(map, pin.as_path());
            }
        }
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|source| KernelError::Load(Box::new(source)))?;
        load_programs(&mut ebpf)?;
        Ok(Self {
            ebpf,
            pin_path: pin_path.into(),
            takes_over,
        })
    }

    /// Typed views of the maps.
    pub fn maps(&self) -> Result<Maps, KernelError> {
        Maps::take(&self.ebpf)
    }
}

fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    for hook in PROGRAMS {
        let program = ebpf
            .program_mut(hook.program)
            .ok_or(KernelError::Missing(hook.program))?;
        let result = match program {
            aya::programs::Program::CgroupSockAddr(_) => {
                <&mut CgroupSockAddr>::try_from(program).and_then(CgroupSockAddr::load)
            }
            aya::programs::Program::CgroupSockopt(_) => {
                <&mut CgroupSockopt>::try_from(program).and_then(CgroupSockopt::load)
            }
            aya::programs::Program::CgroupSock(_) => {
                <&mut CgroupSock>::try_from(program).and_then(CgroupSock::load)
            }
            _ => <&mut SockOps>::try_from(program).and_then(SockOps::load),
        };
        result.map_err(|source| KernelError::Program {
            program: hook.program,
            source: Box::new(source),
        })?;
    }
    Ok(())
}

/// Whether every map is pinned, and with the key, value and capacity that this binary expects.
fn pins_fit(pin_path: &Path, max_connections: u32) -> bool {
    let shape = |map: &str| -> Option<(u32, u32, u32)> {
        let info = MapData::from_pin(pin_path.join(map)).ok()?.info().ok()?;
        Some((info.key_size(), info.value_size(), info.max_entries()))
    };
    let size = |size: usize| size as u32;
    PINNED_MAPS
        .iter()
        .all(|map| fs::exists(pin_path.join(map)).unwrap_or(false))
        && shape("pods").is_some_and(|s| (s.0, s.1) == (8, size(size_of::<Pod>())))
        && shape("sk_storage_map").is_some_and(|s| s.1 == size(size_of::<SocketState>()))
        && shape("origin_dst_map").is_some_and(|s| {
            s == (
                size(size_of::<OriginKey>()),
                size(size_of::<Origin>()),
                max_connections,
            )
        })
}
