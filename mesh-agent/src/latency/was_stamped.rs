//! A TCP connection whose packets were measured and are not any more: it was switched to another protocol.
//!
//! Stamps may be in its error queue for as long as it is open: that it is in error is only believed once that is empty.

use std::{
    io,
    os::fd::AsFd as _,
    sync::Arc,
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::{io::Interest, net::TcpStream};

use super::{leg::Leg, room::Room, socket};

/// A TCP connection whose packets were measured, or may have been.
#[derive(Debug)]
pub struct WasStamped {
    stream: TcpStream,
    leg: Arc<Leg>,
    room: Room,
}

impl WasStamped {
    pub(super) fn new(stream: TcpStream, leg: Arc<Leg>, room: Room) -> Self {
        leg.stop();
        Self { stream, leg, room }
    }

    /// The connection, to read from, to ask and to end.
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Ready when there may be room to write: at once, unless the last write said that there is none.
    pub fn poll_may_write(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.leg.is_prepared() {
            return self.stream.poll_write_ready(context);
        }
        if self.room.is_blocked() {
            ready!(self.room.poll(&self.stream, context))?;
            // What it was woken for may have been a stamp.
            self.take_stamps();
        }
        Poll::Ready(Ok(()))
    }

    /// Runs `write` once. If it says `WouldBlock`, there is no room any more.
    pub fn try_write_by<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if !self.leg.is_prepared() {
            return self.stream.try_io(Interest::WRITABLE, write);
        }
        // Without the runtime, which would not try if it believes that there is no room: where there was none, the
        // system call must have said so for the epoll to hear of it.
        let written = write();
        self.room.wrote(&written, &self.leg);
        written
    }

    /// Resolves when the connection is in error: its peer has reset it, as a rule.
    pub async fn broken(&self) {
        while self.stream.ready(Interest::ERROR).await.is_ok() {
            let looked = self.stream.try_io(Interest::ERROR, || {
                if self.leg.is_prepared() && !self.is_in_error() {
                    // Which makes the runtime wait for the next report.
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            if looked.is_ok() {
                return;
            }
        }
    }

    /// Whether what is reported as an error is not only stamps, which this takes. The error itself is left to who
    /// reads or writes next.
    pub(super) fn is_in_error(&self) -> bool {
        loop {
            let mut look = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
            let looked = poll(&mut look, PollTimeout::ZERO);
            // It says nothing then; and ends, because each time takes a signal.
            if looked == Err(Errno::EINTR) {
                continue;
            }
            let flags = look[0].revents().unwrap_or(PollFlags::empty());
            if looked.is_ok() && !flags.contains(PollFlags::POLLERR) {
                return false;
            }
            // In this order: a stamp that comes in between is one more look.
            if self.take_stamps() == 0 {
                return true;
            }
        }
    }

    fn take_stamps(&self) -> usize {
        socket::drain(&self.stream, |_nobody_wants_it| ())
    }
}
