//! What the kernel half tells the user half through the `events` ring buffer.

use bytemuck::{Pod, Zeroable};

use crate::Address;

/// What happened; stands in [`Event::kind`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A connect went direct: nobody listened.
    FailedOpen = 1,
    /// A connect was refused: nobody listened.
    Refused = 2,
    /// A connect was not redirected: `origin_dst_map` is full.
    MapFull = 3,
}

/// One rare event. The counters count all; events are dropped when the buffer is full.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// Cookie of the pod's network namespace.
    pub netns_cookie: u64,
    /// Destination of the connect.
    pub address: Address,
    /// An [`EventKind`].
    pub kind: u32,
    /// Process (thread group) that called connect.
    pub process: u32,
    /// Its port, host order.
    pub port: u32,
    /// Always 0.
    pub reserved: u32,
}

impl EventKind {
    /// The kind with this number, if there is one.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::FailedOpen),
            2 => Some(Self::Refused),
            3 => Some(Self::MapFull),
            _ => None,
        }
    }
}
