//! Where time goes, by the timestamps that the kernel and the network cards give packets.

pub mod control_messages;
pub mod hardware;
mod nanos;

pub use nanos::{HardwareNanos, SystemNanos};
