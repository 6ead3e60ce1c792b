//! A connection that is read to its end though nothing can be written to it any more.
//!
//! A server may answer before it has read the whole request, and close: a refusal, as a rule. Its kernel then resets
//! the connection. What came before the reset can still be read (`tcp_recvmsg_locked` of net/ipv4/tcp.c looks at the
//! receive queue before it looks at the error), but writing fails from there on, and hyper takes that for the end without
//! another look at what came: the answer would be lost whenever the rest of the request is written before the runtime
//! tells that there is something to read. So hyper never hears that a reset ended its writing. It finds no room to
//! write, as with a server that reads no more, and goes on reading, which ends soon: with what came, and then with
//! the reset.
//!
//! This holds as soon as something of the request was written. What a server said before that answers nothing, and the
//! connection it ended is as good as one it closed while it was idle.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What became of what was written to a connection.
#[derive(Debug, Default)]
pub struct Writing {
    has_begun: AtomicBool,
    has_failed: AtomicBool,
}

impl Writing {
    /// Another request is written from now on.
    pub fn begin(&self) {
        self.has_begun.store(false, Ordering::Relaxed);
    }

    /// Whether nothing can be written any more: hyper may not know, and take the connection for as good as any.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

/// A connection that is read to its end.
#[derive(Debug)]
pub struct HeardOut<S> {
    stream: S,
    writing: Arc<Writing>,
    /// What writing failed with.
    failed: Option<io::ErrorKind>,
}

impl<S> HeardOut<S> {
    /// Reads `stream` to its end. `writing` is told what becomes of what is written.
    pub const fn new(stream: S, writing: Arc<Writing>) -> Self {
        Self {
            stream,
            writing,
            failed: None,
        }
    }

    /// The connection itself.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn wrote(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(_)) => self.writing.has_begun.store(true, Ordering::Relaxed),
            Poll::Ready(Err(error))
                if is_reset(error) && self.writing.has_begun.load(Ordering::Relaxed) =>
            {
                self.failed = Some(error.kind());
                self.writing.has_failed.store(true, Ordering::Relaxed);
                // Who last read before the reset reads again.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            _ => {}
        }
        written
    }
}

/// Whether the peer reset the connection: other errors may leave it as it is, and then reading would not end.
fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for HeardOut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, has_room) = (buffer.filled().len(), buffer.remaining() > 0);
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let is_end = has_room && buffer.filled().len() == before;
        // The kernel reports a reset once, and writing took that: an answer that lasts until its end has none then.
        match self.failed.filter(|_| is_end) {
            // Unless the end had come before.
            Some(kind) if kind != io::ErrorKind::BrokenPipe => Poll::Ready(Err(kind.into())),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeardOut<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
