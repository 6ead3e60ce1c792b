//! What can go wrong between the agent and the kernel.

use std::{io, path::PathBuf};

use thiserror::Error;

/// An error from loading, attaching or updating the kernel half.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The object did not load: verifier, missing BTF, missing rights.
    #[error("the kernel refused the eBPF programs: {0}; run `mesh-agent check`")]
    Load(#[source] Box<aya::EbpfError>),
    /// One program did not load.
    #[error("the kernel refused the eBPF program {program}: {source}; run `mesh-agent check`")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks something that this binary expects: a broken build.
    #[error("the embedded eBPF object has no {0}; this binary was built wrongly")]
    Missing(&'static str),
    /// A map could not be read or changed.
    #[error("eBPF map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// A map or link could not be pinned or unpinned.
    #[error("{path}: {source}; is a bpffs mounted there? (mount -t bpf bpf /sys/fs/bpf)")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Pins could not be removed.
    #[error(
        "cannot remove pins: {0}; what they hold stays attached until they are removed by hand (rm)"
    )]
    PinsStay(String),
    /// The steering program could not be attached to a pod's network namespace.
    #[error("cannot steer inbound connections in its network namespace: {source}")]
    Steering {
        /// What the kernel said.
        source: io::Error,
    },
    /// The cgroup cannot be used.
    #[error("agent.cgroup: {path}: {reason}")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
}
