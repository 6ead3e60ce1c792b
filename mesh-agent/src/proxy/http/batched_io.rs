//! An HTTP/2 connection's socket, used once for many frames.
//!
//! The HTTP/2 library reads and writes frame by frame. Servers send frames of 8 or 16 KiB, so that an
//! answer of 64 KiB would be eight reads and eight writes. Here what is written waits until the
//! connection's task has had its turn, and what is read comes in as large pieces and frames as there are.

use std::{
    io,
    mem::take,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    http2::{Frames, StreamStamps},
    joined_frames::JoinedFrames,
};
use crate::{
    latency::StampedStream,
    proxy::{connection::Moved, scratch},
};

/// Length of what clients begin with (RFC 9113, 3.4).
pub const PREFACE: usize = 24;
/// How much waits to be written before it is.
const MOST: usize = scratch::SIZE;

/// One end of the connection: for the HTTP/2 library.
#[derive(Debug)]
pub struct BatchedIo {
    shared: Arc<Shared>,
    read: JoinedFrames,
    /// What is read, and what is written.
    frames: [Frames; 2],
}

/// The other end: for the task that drives the library.
#[derive(Debug)]
pub struct Flusher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stamps: Arc<StreamStamps>,
    moved: Option<Arc<Moved>>,
    /// Only one task ever has it.
    socket: Mutex<Socket>,
}

#[derive(Debug)]
struct Socket {
    stream: StampedStream,
    outgoing: Outgoing,
}

/// What waits to be written, from `at` on.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    at: usize,
}

/// Reads and writes `stream`, counts what goes through it, and finds out which of its `stamps` are whose. The
/// client of the connection sends `preface` bytes before the first frame.
pub fn batched(
    stream: TcpStream,
    moved: Option<Arc<Moved>>,
    preface: usize,
    stamps: Arc<StreamStamps>,
) -> (BatchedIo, Flusher) {
    let shared = Arc::new(Shared {
        socket: Mutex::new(Socket {
            stream: StampedStream::new(stream, Arc::clone(stamps.leg())),
            outgoing: Outgoing::default(),
        }),
        stamps,
        moved,
    });
    let io = BatchedIo {
        shared: Arc::clone(&shared),
        read: JoinedFrames::after(preface),
        frames: [
            Frames::after(preface),
            Frames::after(PREFACE.saturating_sub(preface)),
        ],
    };
    (io, Flusher(shared))
}

impl Flusher {
    /// Writes what waits, as far as there is room. To be called after each turn of the connection.
    /// Errors are for the connection, which meets them itself.
    pub fn flush(&self, context: &mut Context<'_>) {
        let mut socket = self.0.socket();
        let _met_there = self.0.poll_drain(&mut socket, context);
        self.0.stamps.finish(&socket.stream, false);
    }
}

impl Shared {
    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_drain(&self, socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Socket { stream, outgoing } = socket;
        while outgoing.at < outgoing.bytes.len() {
            let waiting = io::IoSlice::new(&outgoing.bytes[outgoing.at..]);
            match stream.try_write(&[waiting]) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    outgoing.at += count;
                    self.stamps.wrote();
                    self.count(|moved| &moved.received, count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_room(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        outgoing.at = 0;
        scratch::give_back(take(&mut outgoing.bytes));
        Poll::Ready(Ok(()))
    }

    fn count(&self, which: impl FnOnce(&Moved) -> &AtomicU64, count: usize) {
        if let Some(moved) = &self.moved {
            which(moved).fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let socket = self.socket.get_mut();
        let socket = socket.unwrap_or_else(PoisonError::into_inner);
        self.stamps.finish(&socket.stream, true);
    }
}

impl AsyncRead for BatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shared = &this.shared;
        let stream = &mut shared.socket().stream;
        loop {
            if this.read.give(buffer) {
                return Poll::Ready(Ok(()));
            }
            let [frames, _] = &mut this.frames;
            let read = this.read.fill(|into| {
                let before = into.len();
                let count = stream.try_read_more(into)?;
                shared.stamps.read(frames, &into[before..], stream);
                Ok(count)
            });
            match read {
                Ok(count) => {
                    shared.count(|moved| &moved.sent, count);
                    if count == 0 {
                        this.read.give(buffer);
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_read_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for BatchedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let shared = &this.shared;
        let socket = &mut *shared.socket();
        if socket.outgoing.bytes.len() >= MOST {
            ready!(shared.poll_drain(socket, context))?;
        }
        let Socket { stream, outgoing } = socket;
        if outgoing.bytes.capacity() == 0 {
            outgoing.bytes = scratch::buffer();
        }
        let mut taken = 0;
        for slice in slices {
            let room = MOST.saturating_sub(outgoing.bytes.len());
            let count = slice.len().min(room);
            let waiting = outgoing.bytes.len() - outgoing.at;
            let [_, frames] = &mut this.frames;
            (shared.stamps).writes(frames, &slice[..count], waiting, stream);
            outgoing.bytes.extend_from_slice(&slice[..count]);
            taken += count;
            if count < slice.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Leaves it to the task, at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.shared.socket();
        ready!(self.shared.poll_drain(&mut socket, context))?;
        Poll::Ready(socket.stream.end())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        runtime::Builder,
    };

    use super::*;

    async fn pair() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        Ok((client, listener.accept().await?.0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However it is cut, what goes in comes out, both ways.
        #[test]
        fn every_byte_arrives_in_order(
            pieces in prop::collection::vec(0..150_000_usize, 1..20),
            asked in 1..100_000_usize,
        ) {
            let bytes: Vec<u8> = (0..pieces.iter().sum()).map(|at| (at % 251) as u8).collect();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let returned = runtime.block_on(async {
                let (one, other) = pair().await.unwrap();
                let (mut io, flusher) = batched(one, None, usize::MAX, Arc::default());
                let echo = tokio::spawn(async move {
                    let (mut read, mut write) = other.into_split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                });
                let mut returned = Vec::new();
                let mut left = &bytes[..];
                let mut pieces = pieces.iter().copied();
                let mut piece = 0;
                let mut buffer = vec![0; asked];
                let mut is_shut = false;
                // As the library: reads and writes in one task, a turn at a time.
                poll_fn(|context| {
                    loop {
                        while piece == 0 && !left.is_empty() {
                            piece = pieces.next().unwrap_or(left.len());
                        }
                        let mut moved = false;
                        if piece > 0 {
                            let written = Pin::new(&mut io).poll_write(context, &left[..piece]);
                            if let Poll::Ready(count) = written {
                                let count = count.unwrap();
                                left = &left[count..];
                                piece -= count;
                                moved = true;
                            }
                        } else if !is_shut {
                            is_shut = Pin::new(&mut io).poll_shutdown(context).is_ready();
                        }
                        let mut into = ReadBuf::new(&mut buffer);
                        let read = Pin::new(&mut io).poll_read(context, &mut into);
                        if read.is_ready() {
                            if into.filled().is_empty() {
                                return Poll::Ready(());
                            }
                            returned.extend_from_slice(into.filled());
                            moved = true;
                        }
                        if !moved {
                            flusher.flush(context);
                            return Poll::Pending;
                        }
                    }
                })
                .await;
                echo.await.unwrap();
                returned
            });
            prop_assert!(returned == bytes);
        }
    }

    #[tokio::test]
    async fn nothing_is_written_before_the_turn_ends_and_all_of_it_then() {
        let (one, mut other) = pair().await.unwrap();
        let (mut io, flusher) = batched(one, None, usize::MAX, Arc::default());
        io.write_all(b"frame ").await.unwrap();
        io.write_all(b"by frame").await.unwrap();
        io.flush().await.unwrap();
        let mut nothing = [0; 1];
        let early = other.try_read(&mut nothing).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
        poll_fn(|context| {
            flusher.flush(context);
            Poll::Ready(())
        })
        .await;
        let mut all = [0; 14];
        other.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"frame by frame");
    }
}
