//! Waiting on the runtime until a ring buffer has something to read.
//!
//! `unsafe`: the runtime trusts that a descriptor stays open as long as the object that reports it,
//! which the types below fulfil.
#![allow(unsafe_code)]

use std::{io, os::fd::AsRawFd};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::events::KernelLogger;

/// Objects that own the descriptor that `AsRawFd` reports.
pub(super) trait OwnsDescriptor: AsRawFd {}

impl OwnsDescriptor for RingBuf<MapData> {}
impl OwnsDescriptor for KernelLogger {}

/// Registers `object` with the runtime that this runs on.
pub(super) fn register<T: OwnsDescriptor>(object: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the trait's promise.
    unsafe { AsyncFd::register(object) }.map_err(io::Error::from)
}
