//! Waits for room to write at a socket whose error queue is in use.
//!
//! The runtime would take a stamp in the error queue for the end of writing (see `room.rs`). An epoll of
//! one's own says what there really is, and costs nothing until a peer stops reading.
//!
//! `unsafe`: the runtime trusts that a descriptor stays open as long as the object that reports it.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    task::{Context, Poll, ready},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::{Interest, unix::AsyncFd};

/// An edge-triggered epoll of one socket, itself watched by the runtime.
#[derive(Debug)]
pub struct Writable(AsyncFd<Owned>);

#[derive(Debug)]
struct Owned(Epoll);

impl AsRawFd for Owned {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

impl Writable {
    /// Watches `socket`, which has to stay open for longer than this, by this descriptor or another one.
    pub fn new(socket: &impl AsFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let events = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(socket, EpollEvent::new(events, 0))?;
        // SAFETY: an `Epoll` owns its descriptor, and this one is never exchanged.
        let watched = unsafe { AsyncFd::register_with_interest(Owned(epoll), Interest::READABLE) };
        Ok(Self(watched.map_err(io::Error::from)?))
    }

    /// Ready when something has changed: that there is room, that a stamp has come, or the end. Who finds no
    /// room then asks again.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let mut events = [EpollEvent::empty()];
            let epoll = &guard.get_inner().0;
            let count = epoll.wait(&mut events, EpollTimeout::ZERO)?;
            // One socket has one event: that was it.
            guard.clear_ready();
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
