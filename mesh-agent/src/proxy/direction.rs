//! Copies bytes one way between two TCP streams, with back-pressure.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{pending, poll_fn},
    io::{self, Read as _},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use socket2::{SockRef, Socket};
use tokio::{io::Interest, net::TcpStream};

use crate::pods;

/// Larger gains nothing that can be told from noise (`cargo xtask bench --only bulk`).
const MOST_AT_ONCE: usize = 256 * 1024;

/// What a new connection's send buffer takes whole.
const FIRST: usize = 64 * 1024;

/// Less is not worth a call; about what a direction whose reader stalls holds.
const LEAST: usize = 16 * 1024;

thread_local! {
    /// What was read, until it is written. Never held while waiting, so one for each thread does:
    /// connections own no buffer, but for the rest that their reader had no room for.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum Broken {
    /// All that it had sent was handed to the target's socket.
    Source,
    /// Some of what the source sent may be lost.
    Target(io::Error),
}

/// What came of one read and the first write of it.
enum Step {
    Moved,
    /// The target had no room for this.
    Rest(Vec<u8>),
    End,
}

/// Copies until the source ends; `total` counts the bytes that the target's socket took.
pub(super) async fn copy(
    source: &TcpStream,
    target: &TcpStream,
    total: &AtomicU64,
) -> Result<(), Broken> {
    let mut limit = FIRST;
    loop {
        match poll_fn(|context| poll_step(source, target, &mut limit, total, context)).await? {
            Step::Moved => {}
            Step::Rest(rest) => write_all(target, &rest, total).await?,
            Step::End => return Ok(()),
        }
    }
}

/// Reads what nobody wants any more, for ever: an app that is stuck in sending never gets to reading
/// what it was sent.
pub(super) async fn discard(source: &TcpStream) -> Infallible {
    let mut read = |context: &mut Context<'_>| {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(scratch.len().max(FIRST), 0);
            poll_read(source, scratch, context)
        })
    };
    while matches!(poll_fn(&mut read).await, Ok(1..)) {}
    pending().await
}

/// Ends what is sent to `target`.
pub(super) fn pass_on_end(target: &TcpStream) {
    // A peer that is gone already shows as such.
    let _peer_gone = SockRef::from(target).shutdown(std::net::Shutdown::Write);
}

fn poll_step(
    source: &TcpStream,
    target: &TcpStream,
    limit: &mut usize,
    total: &AtomicU64,
    context: &mut Context<'_>,
) -> Poll<Result<Step, Broken>> {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < *limit {
            scratch.resize(*limit, 0);
        }
        let scratch = &mut scratch[..*limit];
        let read = ready!(poll_read(source, scratch, context)).map_err(|_reset| Broken::Source)?;
        if read == 0 {
            return Poll::Ready(Ok(Step::End));
        }
        let written = match poll_write(target, &scratch[..read], context) {
            Poll::Ready(written) => written.map_err(Broken::Target)?,
            Poll::Pending => 0,
        };
        total.fetch_add(written as u64, Ordering::Relaxed);
        let step = if written < read {
            *limit = LEAST;
            Step::Rest(scratch[written..read].to_vec())
        } else {
            // Worth a call to ask only where much is moved.
            *limit = if read == *limit || read >= FIRST {
                room(target)
            } else {
                FIRST
            };
            Step::Moved
        };
        Poll::Ready(Ok(step))
    })
}

/// How much to read at once for `target`: what it will take. More would wait in our memory.
fn room(target: &TcpStream) -> usize {
    pods::send_buffer(target).map_or(LEAST, |buffer| {
        (buffer.size.saturating_sub(buffer.queued) as usize).clamp(LEAST, MOST_AT_ONCE)
    })
}

async fn write_all(target: &TcpStream, mut rest: &[u8], total: &AtomicU64) -> Result<(), Broken> {
    while !rest.is_empty() {
        let written = poll_fn(|context| poll_write(target, rest, context))
            .await
            .map_err(Broken::Target)?;
        total.fetch_add(written as u64, Ordering::Relaxed);
        rest = &rest[written..];
    }
    Ok(())
}

fn poll_read(
    stream: &TcpStream,
    buffer: &mut [u8],
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let length = buffer.len();
    loop {
        ready!(stream.poll_read_ready(context))?;
        let read = try_transfer(stream, Interest::READABLE, length, |mut socket| {
            socket.read(buffer)
        });
        if let Some(read) = read.transpose() {
            return Poll::Ready(read);
        }
    }
}

fn poll_write(
    stream: &TcpStream,
    bytes: &[u8],
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        let written = try_transfer(stream, Interest::WRITABLE, bytes.len(), |socket| {
            socket.send_with_flags(bytes, libc::MSG_NOSIGNAL)
        });
        if let Some(written) = written.transpose() {
            return Poll::Ready(written);
        }
    }
}

/// Reads or writes once; `None` if the socket was not ready after all.
///
/// A call that moved less than it might have has used up the readiness. Saying so saves the next
/// call, which would only find that out. It must be said from inside `try_io`: readiness that comes
/// after the call began would be lost otherwise, and with it the wake-up.
fn try_transfer(
    stream: &TcpStream,
    interest: Interest,
    length: usize,
    transfer: impl FnOnce(&Socket) -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    let mut moved = None;
    let result = stream.try_io(interest, || {
        let count = transfer(&SockRef::from(stream))?;
        moved = Some(count);
        if 0 < count && count < length {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match result {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(moved),
    }
}
