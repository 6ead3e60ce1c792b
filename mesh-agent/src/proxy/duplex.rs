//! What bytes are copied between: TCP connections, of which some were measured before.

use std::{
    io,
    task::{Context, Poll},
};

use tokio::{io::Interest, net::TcpStream};

use crate::latency::WasStamped;

/// A connection that bytes are copied from and to.
pub trait Duplex {
    /// The connection itself, to read from, to ask and to end. What it says of room to write and of errors may not
    /// be true.
    fn stream(&self) -> &TcpStream;

    /// Ready when there may be room to write.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Runs `write` once, if there may be room; an error of the kind `WouldBlock`, whoever says so, means that there
    /// is none any more.
    fn try_write<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T>;

    /// Resolves when the peer has reset the connection. An error is as good a sign.
    fn reset(&self) -> impl Future<Output = ()> + Send;
}

impl Duplex for TcpStream {
    fn stream(&self) -> &TcpStream {
        self
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(context)
    }

    fn try_write<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(Interest::WRITABLE, write)
    }

    async fn reset(&self) {
        let _error = self.ready(Interest::ERROR).await;
    }
}

impl Duplex for WasStamped {
    fn stream(&self) -> &TcpStream {
        self.stream()
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_may_write(context)
    }

    fn try_write<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_write_by(write)
    }

    async fn reset(&self) {
        self.broken().await;
    }
}
