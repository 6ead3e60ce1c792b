//! A TCP connection whose packets can be measured.
//!
//! A transmit stamp in the error queue makes a socket report EPOLLERR, which the runtime takes for the end of
//! writing, for good: from then on each wait for room to write would be over at once, and the task that waits
//! would never stop. So a connection that was stamped asks another epoll for room to write, one of its own
//! that only comes to be when there is none. Reading is not affected, and a connection that was never
//! stamped is not either.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{clock::Nanos, leg::Leg, socket, writable::Writable};

/// A TCP connection whose packets can be measured.
#[derive(Debug)]
pub struct StampedStream {
    stream: TcpStream,
    leg: Arc<Leg>,
    /// Waits for room to write, since when.
    writable: Option<Box<Writable>>,
    blocked_since: Option<Nanos>,
}

impl StampedStream {
    /// One that nothing is wanted of yet.
    pub fn new(stream: TcpStream, leg: Arc<Leg>) -> Self {
        Self {
            stream,
            leg,
            writable: None,
            blocked_since: None,
        }
    }

    /// The connection, to look at.
    pub const fn get_ref(&self) -> &TcpStream {
        &self.stream
    }

    /// What is known of its packets.
    pub const fn leg(&self) -> &Arc<Leg> {
        &self.leg
    }

    /// The connection itself, as if it had never been stamped.
    pub fn into_inner(self) -> io::Result<TcpStream> {
        if !self.leg.is_prepared() {
            return Ok(self.stream);
        }
        self.take_stamps();
        TcpStream::from_std(self.stream.into_std()?)
    }

    /// Takes the stamps that have come.
    pub fn take_stamps(&self) {
        let stream = &self.stream;
        self.leg
            .stamped(|mut each| socket::drain(stream, &mut each));
    }

    /// Takes the stamps that were asked for, if they have come.
    pub fn take_asked(&self) {
        if self.leg.is_prepared() && self.leg.is_waiting() {
            self.take_stamps();
        }
    }

    fn prepare(&self) -> bool {
        if self.leg.is_prepared() {
            return true;
        }
        let prepared = socket::prepare_stream(&self.stream, false);
        if let Err(error) = &prepared
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!("the kernel gives no packet timestamps: {error}");
        }
        if prepared.is_ok() {
            self.leg.prepared();
        }
        prepared.is_ok()
    }

    /// Reads with stamps.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let into = buffer.initialize_unfilled();
            let mut got = None;
            let tried = self.stream.try_io(Interest::READABLE, || {
                let (count, stamps) = socket::receive(&self.stream, into)?;
                got = Some((count, stamps));
                // There is no more: what the runtime's own read does, too.
                if count > 0 && count < into.len() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            if let Some((count, stamps)) = got {
                buffer.advance(count);
                if count > 0 {
                    self.received(stamps);
                }
                return Poll::Ready(Ok(()));
            }
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                tried => return Poll::Ready(tried),
            }
        }
    }

    fn received(&self, stamps: Option<super::control_messages::Stamps>) {
        let is_first = self.leg.is_silent();
        self.leg.arrived(stamps);
        // Stamps of what this answers came before it.
        if is_first && self.leg.is_waiting() {
            self.take_stamps();
            if let Ok(info) = socket::tcp_info(&self.stream) {
                self.leg.informed(info);
            }
        }
    }

    /// Writes, with stamps if they are wanted.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let asked = self.leg.asked().filter(|_| self.prepare());
            let tried = match asked {
                Some(asked) => self.stream.try_io(Interest::WRITABLE, || {
                    socket::send(&self.stream, slices, asked)
                }),
                None => self.stream.try_write_vectored(slices),
            };
            match tried {
                Ok(count) => {
                    self.leg.wrote(count, asked.is_some());
                    if let Some(since) = self.blocked_since.take() {
                        let blocked = Nanos::now().since(since).max(0);
                        self.leg.add_blocked(blocked.cast_unsigned());
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_room(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.blocked_since.get_or_insert_with(Nanos::now);
        if !self.leg.is_prepared() {
            return self.stream.poll_write_ready(context);
        }
        let writable = match &mut self.writable {
            Some(writable) => writable,
            none => none.insert(Box::new(Writable::new(&self.stream)?)),
        };
        let ready = ready!(writable.poll(context));
        // What it was woken for may have been a stamp.
        let stream = &self.stream;
        self.leg
            .stamped(|mut each| socket::drain(stream, &mut each));
        Poll::Ready(ready)
    }
}

impl AsyncRead for StampedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.leg.is_receiving() && self.prepare() {
            return self.poll_receive(context, buffer);
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for StampedStream {
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
        if self.leg.is_prepared() || self.leg.asked().is_some() {
            return self.poll_send(context, slices);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
