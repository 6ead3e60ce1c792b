//! A pipe through which bytes pass from one socket to another inside the kernel.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use tokio::{net::TcpStream, sync::SemaphorePermit};

use super::capacity;

/// What a pipe takes at most: what the kernel allows a process without privileges, by pipe(7).
const CAPACITY: i32 = 1 << 20;

thread_local! {
    /// A pipe is only held while there are bytes in it, so each thread needs one, and more only
    /// for readers that stall.
    static IDLE: RefCell<Option<Ends>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Ends {
    out: OwnedFd,
    into: OwnedFd,
    _descriptors: SemaphorePermit<'static>,
}

impl Ends {
    fn new() -> Option<Self> {
        let descriptors = capacity::pipe()?;
        let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        fcntl(&into, FcntlArg::F_SETPIPE_SZ(CAPACITY)).ok()?;
        Some(Self {
            out,
            into,
            _descriptors: descriptors,
        })
    }
}

/// A pipe that is empty or has bytes on their way. Used again if it is empty when dropped.
#[derive(Debug)]
pub(super) struct Pipe {
    /// `Some` until dropped.
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// An empty pipe; `None` if there are no descriptors or no memory for one.
    pub fn take() -> Option<Self> {
        let ends = IDLE.take().or_else(Ends::new)?;
        Some(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `most` bytes from a socket into the pipe; 0 at the end of the stream.
    pub fn fill(&mut self, source: &TcpStream, most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = splice(source.as_fd(), None, &ends.into, None, most, flags())?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves bytes from the pipe into a socket.
    pub fn empty(&mut self, target: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = splice(&ends.out, None, target.as_fd(), None, self.held, flags())?;
        self.held -= moved;
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if self.held == 0 {
            // At the end of a thread there is no place for it any more.
            let _former = IDLE.try_with(|idle| idle.replace(self.ends.take()));
        }
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE
}
