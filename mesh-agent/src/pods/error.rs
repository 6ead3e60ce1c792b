//! Why a pod cannot be enrolled.

use std::path::PathBuf;

use thiserror::Error;

use super::{ListenError, NetnsError};
use crate::kernel::KernelError;

/// Why a pod cannot be enrolled.
#[derive(Debug, Error)]
pub enum PodError {
    /// Its network namespace.
    #[error("pod {pod}: netns: {source}")]
    Netns {
        /// Name of the pod.
        pod: String,
        /// What is wrong.
        source: NetnsError,
    },
    /// Two pods with one network namespace, perhaps by two paths.
    #[error(
        "pod {pod}: netns: {path} is the same network namespace as that of pod {other}; every pod \
         needs its own"
    )]
    SameNetns {
        /// Name of the pod.
        pod: String,
        /// Its path.
        path: PathBuf,
        /// The pod that has it already.
        other: String,
    },
    /// The agent's port inside it.
    #[error("pod {pod}: {source}")]
    Listen {
        /// Name of the pod.
        pod: String,
        /// What is wrong.
        source: ListenError,
    },
    /// The cgroup of its external proxy.
    #[error("pod {pod}: proxy.external.cgroup: {source}")]
    ProxyCgroup {
        /// Name of the pod.
        pod: String,
        /// What is wrong.
        source: KernelError,
    },
    /// The kernel half.
    #[error("pod {pod}: {source}")]
    Kernel {
        /// Name of the pod.
        pod: String,
        /// What the kernel said.
        source: KernelError,
    },
}

impl PodError {
    /// Whether the pod may still come: nothing is wrong with it yet.
    pub const fn is_not_there_yet(&self) -> bool {
        matches!(
            self,
            Self::Netns {
                source: NetnsError::Missing(_),
                ..
            } | Self::Listen {
                source: ListenError::Loopback(_),
                ..
            }
        )
    }

    /// Whether it may pass without a change of the configuration. The kernel half's maps do not
    /// grow.
    pub const fn may_pass(&self) -> bool {
        !matches!(self, Self::Kernel { .. })
    }
}
