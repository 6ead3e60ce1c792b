//! Copies bytes one way between two TCP streams, with back-pressure.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io::{self, Read as _},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::{duplex::Duplex, pace::Pace, pipe::Pipe, scratch::with_scratch};

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
    Rest(Rest),
    End,
}

/// What was taken from the source and not yet written.
enum Rest {
    Bytes(Vec<u8>),
    Pipe(Pipe),
}

/// Where a read left what it read.
enum Taken {
    /// In the scratch buffer.
    Bytes(usize),
    Pipe(Pipe),
    End,
}

impl Taken {
    fn bytes(count: usize) -> Self {
        if count == 0 {
            Self::End
        } else {
            Self::Bytes(count)
        }
    }
}

/// Copies until the source ends; `total` counts the bytes that the target's socket took.
pub(super) async fn copy<D: Duplex>(
    source: &D,
    target: &D,
    total: &AtomicU64,
) -> Result<(), Broken> {
    let mut pace = Pace::new();
    loop {
        let step = |context: &mut Context<'_>| {
            poll_step(source.stream(), target, &mut pace, total, context)
        };
        match poll_fn(step).await? {
            Step::Moved => {}
            Step::Rest(Rest::Bytes(rest)) => write_all(target, &rest, total).await?,
            Step::Rest(Rest::Pipe(mut pipe)) => {
                poll_fn(|context| poll_empty(target, &mut pipe, total, context)).await?;
            }
            Step::End => return Ok(()),
        }
    }
}

/// Reads what nobody wants any more, for ever: an app that is stuck in sending never gets to reading
/// what it was sent.
pub(super) async fn discard(source: &TcpStream) -> Infallible {
    let mut read =
        |context: &mut Context<'_>| with_scratch(|scratch| poll_read(source, scratch, context));
    while matches!(poll_fn(&mut read).await, Ok(1..)) {}
    pending().await
}

/// Ends what is sent to `target`.
pub(super) fn pass_on_end(target: &TcpStream) {
    // A peer that is gone already shows as such.
    let _peer_gone = SockRef::from(target).shutdown(std::net::Shutdown::Write);
}

fn poll_step<D: Duplex>(
    source: &TcpStream,
    target: &D,
    pace: &mut Pace,
    total: &AtomicU64,
    context: &mut Context<'_>,
) -> Poll<Result<Step, Broken>> {
    with_scratch(|scratch| {
        let taken = ready!(poll_take(source, pace, scratch, context));
        let (count, rest) = match taken.map_err(|_reset| Broken::Source)? {
            Taken::End => return Poll::Ready(Ok(Step::End)),
            Taken::Bytes(read) => {
                let written = match poll_write(target, &scratch[..read], context) {
                    Poll::Ready(written) => written.map_err(Broken::Target)?,
                    Poll::Pending => 0,
                };
                total.fetch_add(written as u64, Ordering::Relaxed);
                let rest = &scratch[written..read];
                (read, (!rest.is_empty()).then(|| Rest::Bytes(rest.to_vec())))
            }
            Taken::Pipe(mut pipe) => {
                let count = pipe.held();
                match poll_empty(target, &mut pipe, total, context)? {
                    Poll::Ready(()) => (count, None),
                    Poll::Pending => (count, Some(Rest::Pipe(pipe))),
                }
            }
        };
        pace.adapt(count, rest.is_some(), target.stream());
        Poll::Ready(Ok(rest.map_or(Step::Moved, Step::Rest)))
    })
}

/// Takes some of what the source sent.
fn poll_take(
    source: &TcpStream,
    pace: &Pace,
    scratch: &mut [u8],
    context: &mut Context<'_>,
) -> Poll<io::Result<Taken>> {
    let most = pace.limit.min(scratch.len());
    let Some(mut pipe) = pace.in_kernel.then(Pipe::take).flatten() else {
        return poll_read(source, &mut scratch[..most], context).map_ok(Taken::bytes);
    };
    loop {
        ready!(source.poll_read_ready(context))?;
        let mut read = 0;
        let taken = source.try_io(Interest::READABLE, || {
            match pipe.fill(source, pace.limit) {
                Ok(1..) => return Ok(()),
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            // Perhaps there is something: splice(2) takes an urgent byte for the end, or for
            // nothing.
            read = (&*SockRef::from(source)).read(&mut scratch[..most])?;
            Ok(())
        });
        match taken {
            Ok(()) if pipe.held() > 0 => return Poll::Ready(Ok(Taken::Pipe(pipe))),
            Ok(()) => return Poll::Ready(Ok(Taken::bytes(read))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Writes all that is in the pipe.
fn poll_empty<D: Duplex>(
    target: &D,
    pipe: &mut Pipe,
    total: &AtomicU64,
    context: &mut Context<'_>,
) -> Poll<Result<(), Broken>> {
    while pipe.held() > 0 {
        ready!(target.poll_room(context)).map_err(Broken::Target)?;
        match target.try_write(|| pipe.empty(target.stream())) {
            Ok(written) => _ = total.fetch_add(written as u64, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(Broken::Target(error))),
        }
    }
    Poll::Ready(Ok(()))
}

async fn write_all<D: Duplex>(
    target: &D,
    mut rest: &[u8],
    total: &AtomicU64,
) -> Result<(), Broken> {
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
    loop {
        ready!(stream.poll_read_ready(context))?;
        let mut read = Once::of(buffer.len());
        let tried = stream.try_io(Interest::READABLE, || {
            read.moved((&*SockRef::from(stream)).read(buffer))
        });
        if let Some(read) = read.after(tried) {
            return Poll::Ready(read);
        }
    }
}

fn poll_write<D: Duplex>(
    target: &D,
    bytes: &[u8],
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(target.poll_room(context))?;
        let mut written = Once::of(bytes.len());
        let tried = target.try_write(|| {
            let socket = SockRef::from(target.stream());
            written.moved(socket.send_with_flags(bytes, libc::MSG_NOSIGNAL))
        });
        if let Some(written) = written.after(tried) {
            return Poll::Ready(written);
        }
    }
}

/// One read or write.
///
/// A call that moved less than it might have has used up the readiness. Saying so saves the next
/// call, which would only find that out. It must be said from inside `try_io`: readiness that comes
/// after the call began would be lost otherwise, and with it the wake-up.
struct Once {
    most: usize,
    moved: Option<usize>,
}

impl Once {
    /// One that moves up to `most` bytes.
    fn of(most: usize) -> Self {
        Self { most, moved: None }
    }

    /// The call was made, with this result; what to say of it.
    fn moved(&mut self, called: io::Result<usize>) -> io::Result<()> {
        let count = called?;
        self.moved = Some(count);
        if 0 < count && count < self.most {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    /// What came of it; `None` if the socket was not ready after all.
    fn after(self, tried: io::Result<()>) -> Option<io::Result<usize>> {
        match tried {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Some(Err(error)),
            _ => self.moved.map(Ok),
        }
    }
}
