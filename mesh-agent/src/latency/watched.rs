//! A TCP socket that the runtime watches: for reading and for room to write, and for reading only once it is stamped
//! again and again.
//!
//! A stamp that comes to the error queue wakes up who watches the socket, and the runtime is told whatever it wants to know
//! that is so by then (`ep_send_events` of fs/eventpoll.c): that there is room to write, as a rule. Each stamped write
//! would be a turn of the event loop for nothing. Of a socket that is watched for reading only there is nothing to be told
//! if the stamp was taken meanwhile.
//!
//! `unsafe`: the runtime trusts that a descriptor stays open as long as the object that reports it.
#![allow(unsafe_code)]

use std::{
    io,
    mem::MaybeUninit,
    net,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
    runtime::Handle,
};

/// A socket, and what it is watched for.
#[derive(Debug)]
pub enum Watched {
    /// Reading and writing.
    Both(TcpStream),
    /// Reading.
    Reading(AsyncFd<net::TcpStream>),
}

impl Watched {
    /// From now on it is watched for reading only. Who waits to read has to ask again. Where that cannot be, it stays as
    /// it is.
    pub fn read_only(&mut self) {
        let Self::Both(stream) = self else { return };
        // One may be looked at for the last time where there is no runtime any more.
        if Handle::try_current().is_err() {
            return;
        }
        // Another descriptor, so that there is one whatever fails.
        let Ok(other) = stream.as_fd().try_clone_to_owned() else {
            return;
        };
        let other = net::TcpStream::from(other);
        // SAFETY: a `TcpStream` owns its descriptor, and this one is never exchanged.
        let watched = unsafe { AsyncFd::register_with_interest(other, Interest::READABLE) };
        if let Ok(reading) = watched {
            *self = Self::Reading(reading);
        }
    }

    /// The connection, watched for both.
    pub fn into_stream(self) -> io::Result<TcpStream> {
        match self {
            Self::Both(stream) => Ok(stream),
            Self::Reading(reading) => TcpStream::from_std(reading.into_inner()),
        }
    }

    /// Ready when there may be something to read.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Both(stream) => stream.poll_read_ready(context),
            Self::Reading(reading) => reading.poll_read_ready(context).map_ok(|_stays| ()),
        }
    }

    /// Runs `read` once, if there may be something. If it says `WouldBlock` there is nothing any more.
    pub fn try_read<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Both(stream) => stream.try_io(Interest::READABLE, read),
            Self::Reading(reading) => reading.try_io(Interest::READABLE, |_| read()),
        }
    }

    /// Looks at what comes next: how much is there.
    pub fn poll_peek(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            let peek = || SockRef::from(self).peek(&mut [MaybeUninit::uninit()]);
            match self.try_read(peek) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return Poll::Ready(peeked),
            }
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Both(stream) => stream.as_fd(),
            Self::Reading(reading) => reading.get_ref().as_fd(),
        }
    }
}

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
