//! Loading the embedded object, with the maps of an earlier run where they fit.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapInfo, MapType},
    programs::{CgroupSock, CgroupSockAddr, CgroupSockopt, SockOps},
};

use super::{KernelError, Maps, PROGRAMS, pins::remove_pins};

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
    "udp_storage_map",
    "origin_dst_map",
    "origin_count",
    "exclusions",
    "counters",
    "events",
    "inbound_ports",
    "inbound_sockets",
    "inbound_proxies",
    "inbound_peers",
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
        let mut ebpf = load_object(max_connections, None)?;
        let takes_over = pins_fit(&ebpf, pin_path);
        if takes_over {
            ebpf = load_object(max_connections, Some(pin_path))?;
        }
        load_programs(&mut ebpf)?;
        Ok(Self {
            ebpf,
            pin_path: pin_path.into(),
            takes_over,
        })
    }

    /// Pins the maps, so that programs loaded later can share them.
    ///
    /// On an error nothing new stays pinned.
    pub fn pin_maps(&self) -> Result<(), KernelError> {
        if self.takes_over {
            return Ok(());
        }
        // Pins of another shape, or half a set: nothing of them can be used.
        remove_pins(&self.pin_path)?;
        let pinned = PINNED_MAPS.iter().try_for_each(|&name| {
            let path = self.pin_path.join(name);
            let map = self.ebpf.map(name).ok_or(KernelError::Missing(name))?;
            map.pin(&path).map_err(|error| KernelError::Pin {
                path,
                source: io::Error::other(error.to_string()),
            })
        });
        if pinned.is_err() {
            self.unpin();
        }
        pinned
    }

    /// Takes back what [`Loaded::pin_maps`] did.
    pub fn unpin(&self) {
        if !self.takes_over
            && let Err(stay) = remove_pins(&self.pin_path)
        {
            tracing::error!("{stay}");
        }
    }

    /// Typed views of the maps.
    pub fn maps(&self) -> Result<Maps, KernelError> {
        Maps::take(&self.ebpf)
    }
}

/// Makes the object's maps, or opens those that are pinned under `pin_path`.
fn load_object(max_connections: u32, pin_path: Option<&Path>) -> Result<Ebpf, KernelError> {
    let limit = u64::from(max_connections - handshake_margin(max_connections));
    let pins: Vec<(&str, PathBuf)> = pin_path
        .into_iter()
        .flat_map(|path| PINNED_MAPS.iter().map(|&map| (map, path.join(map))))
        .collect();
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries("origin_dst_map", max_connections)
        .override_global("ORIGIN_LIMIT", &limit, true);
    for (map, pin) in &pins {
        loader.map_pin_path(map, pin.as_path());
    }
    loader
        .load(OBJECT)
        .map_err(|source| KernelError::Load(Box::new(source)))
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

/// Whether every map is pinned, and in the shape that today's object gives it. What the kernel says
/// of newly made maps is compared, because that is what it will be asked for.
fn pins_fit(new: &Ebpf, pin_path: &Path) -> bool {
    PINNED_MAPS.iter().all(|&name| {
        let pinned = MapInfo::from_pin(pin_path.join(name)).ok();
        let new = new.map(name).and_then(info);
        pinned
            .zip(new)
            .is_some_and(|(pinned, new)| Shape::of(&pinned) == Shape::of(&new))
    })
}

/// What must be the same for a program to be loaded with a map that exists.
#[derive(PartialEq)]
struct Shape {
    kind: Option<MapType>,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

impl Shape {
    fn of(info: &MapInfo) -> Self {
        Self {
            kind: info.map_type().ok(),
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            flags: info.map_flags(),
        }
    }
}

fn info(map: &Map) -> Option<MapInfo> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::SkStorage(data)
        | Map::SockHash(data)
        | Map::RingBuf(data) => data.info().ok(),
        _ => None,
    }
}
