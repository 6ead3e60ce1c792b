//! The kernel half as the rest of the agent sees it: loading, attaching, and typed views of the
//! maps. The only room that knows aya.

mod attach;
mod bpf_syscall;
mod cgroup;
mod error;
mod events;
mod inbound;
mod kfunc;
mod load;
mod maps;
mod mountinfo;
mod pins;
mod pod_socket_map;
mod pod_sockets;
mod programs;
mod readiness;
mod steering;

pub use attach::{Attached, pin_directory};
pub use cgroup::Cgroup;
pub use error::KernelError;
pub use events::{KernelEvent, KernelEvents, KernelLogger, kernel_log};
pub use inbound::{KnownServer, Server};
pub use load::Loaded;
pub use maps::{Excluded, Maps, OriginEntry};
pub use pod_socket_map::PodSocketEntry;
pub use pod_sockets::{MeasuredSockets, Measuring};
use programs::PROGRAMS;
pub use programs::{AttachedProgram, attached_programs};
pub use steering::{Steering, sweep_steering};
