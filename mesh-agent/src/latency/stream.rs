//! A TCP connection whose packets can be measured.
//!
//! A transmit stamp in the error queue makes a socket report EPOLLERR, which the runtime takes for the end of
//! writing, for good: from then on each wait for room to write would be over at once, and the task that waits
//! would never stop. So a connection that was stamped asks another epoll for room to write, one of its own
//! that only comes to be when there is none. That it is in error is only believed once its error queue is empty.
//! Reading is not affected, and a connection that was never stamped is not either.

use std::{
    io::{self, IoSlice},
    os::fd::AsFd as _,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    cards,
    clock::Nanos,
    control_messages::{Stamps, TransmitStamp},
    leg::Leg,
    socket::{self, Asked},
    writable::Writable,
};

/// A TCP connection whose packets can be measured.
#[derive(Debug)]
pub struct StampedStream {
    stream: TcpStream,
    leg: Arc<Leg>,
    /// Whether its socket gives stamps of cards: a first card may come later than the connection.
    asks_cards: AtomicBool,
    is_blocked: AtomicBool,
    blocked: Mutex<Blocked>,
}

/// There is no room to write.
#[derive(Debug, Default)]
struct Blocked {
    /// Waits for it, if the runtime cannot.
    writable: Option<Box<Writable>>,
    since: Option<Nanos>,
}

impl StampedStream {
    /// One that nothing is wanted of yet.
    pub fn new(stream: TcpStream, leg: Arc<Leg>) -> Self {
        Self {
            stream,
            leg,
            asks_cards: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            blocked: Mutex::default(),
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

    /// Takes the stamps that have come; says how many there were.
    pub fn take_stamps(&self) -> usize {
        let stream = &self.stream;
        let mut taken = 0;
        self.leg.stamped(|each| {
            taken = socket::drain(stream, each);
            taken
        });
        taken
    }

    /// Takes the stamps that were asked for, if they have come.
    pub fn take_asked(&self) {
        if self.leg.is_prepared() && self.leg.is_waiting() {
            self.take_awaited();
        }
    }

    /// Takes the stamps of what an answer that begins is to, which came before it, and asks how the connection
    /// is.
    pub fn take_way(&self) {
        if self.leg.is_waiting() {
            self.take_awaited();
            self.ask_info();
        }
    }

    fn take_awaited(&self) {
        // As a rule it is one, and a look at an empty queue costs as much.
        let one = |each: &mut dyn FnMut(TransmitStamp)| socket::take_one(&self.stream, each);
        if cards::are_used() || !self.leg.stamped(one) {
            self.take_stamps();
        }
    }

    fn ask_info(&self) {
        if self.leg.wants_info()
            && let Ok(info) = socket::tcp_info(&self.stream)
        {
            self.leg.informed(info);
        }
    }

    /// Whether stamps can be asked for, from now on.
    pub fn prepare(&self) -> bool {
        let was_prepared = self.leg.is_prepared();
        let with_cards = cards::are_used();
        if was_prepared && (!with_cards || self.asks_cards.load(Ordering::Relaxed)) {
            return true;
        }
        let prepared = socket::prepare_stream(&self.stream, with_cards);
        if let Err(error) = &prepared
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!("the kernel gives no packet timestamps: {error}");
        }
        if prepared.is_ok() {
            self.asks_cards.store(with_cards, Ordering::Relaxed);
            self.leg.prepared();
        }
        was_prepared || prepared.is_ok()
    }

    /// Ready when there may be something to read.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(context)
    }

    /// Reads into the room that `buffer` has, with stamps if they are wanted.
    pub fn try_read_more(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if !(self.leg.is_receiving() && self.prepare()) {
            return self.stream.try_read_buf(buffer);
        }
        let room = buffer.capacity() - buffer.len();
        let (count, _) = self.receive(room, || socket::receive(&self.stream, buffer))?;
        Ok(count)
    }

    /// Runs `receive`, which has room for so many bytes. How many came, and whether they are the first after something
    /// whose stamps are awaited.
    fn receive(
        &self,
        room: usize,
        receive: impl FnOnce() -> io::Result<(usize, Option<Stamps>)>,
    ) -> io::Result<(usize, bool)> {
        let mut got = None;
        let tried = self.stream.try_io(Interest::READABLE, || {
            let (count, stamps) = receive()?;
            got = Some((count, stamps));
            // There is no more, which the runtime is told so: what its own read does, too.
            if count > 0 && count < room {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match got {
            Some((0, _)) => Ok((0, false)),
            Some((count, stamps)) => Ok((count, self.leg.arrived(stamps))),
            None => tried.map(|()| (0, false)),
        }
    }

    /// Writes as much as there is room for, with stamps if they are wanted.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let wanted = self.leg.asked().filter(|_| self.prepare());
        let asked = wanted.filter(|_| self.may_ask());
        let asked = asked.map(|asked| {
            // Where the socket gives none, the card's would take the place of the kernel's.
            if self.asks_cards.load(Ordering::Relaxed) {
                asked.by_card()
            } else {
                asked
            }
        });
        if !self.leg.is_prepared() {
            return self.stream.try_write_vectored(slices);
        }
        let count = self.try_write_by(|| socket::send(&self.stream, slices, asked))?;
        let wanted = wanted.map(|_| asked.unwrap_or(Asked::NOTHING));
        self.leg.wrote(count, wanted);
        Ok(count)
    }

    /// Whether the error queue has room for more stamps. Else a write has none, and is said to have left when the system
    /// call had taken it.
    fn may_ask(&self) -> bool {
        if !self.leg.has_many_untaken() {
            return true;
        }
        self.take_stamps();
        self.leg.has_room_for_stamps()
    }

    /// Runs `write` once. If it says `WouldBlock`, there is no room any more.
    pub fn try_write_by<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if !self.leg.is_prepared() {
            return self.stream.try_io(Interest::WRITABLE, write);
        }
        // Without the runtime, which would not try if it believes that there is no room: where there was none, the
        // system call must have said so for the epoll to hear of it.
        let written = write();
        match &written {
            Ok(_) if self.is_blocked.load(Ordering::Relaxed) => self.unblocked(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_blocked.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        written
    }

    /// Ready when there may be room to write: at once, unless the last write said that there is none.
    pub fn poll_may_write(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.leg.is_prepared() && !self.is_blocked.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        self.poll_room(context)
    }

    /// After there was no room to write: ready when there may be.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.leg.is_prepared() {
            return self.stream.poll_write_ready(context);
        }
        self.is_blocked.store(true, Ordering::Relaxed);
        let mut blocked = self.blocked();
        blocked.since.get_or_insert_with(Nanos::now);
        let writable = match &mut blocked.writable {
            Some(writable) => writable,
            none => none.insert(Box::new(Writable::new(&self.stream)?)),
        };
        ready!(writable.poll(context))?;
        drop(blocked);
        // What it was woken for may have been a stamp.
        self.take_stamps();
        Poll::Ready(Ok(()))
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
    fn is_in_error(&self) -> bool {
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

    /// There was room again.
    fn unblocked(&self) {
        self.is_blocked.store(false, Ordering::Relaxed);
        let mut blocked = self.blocked();
        // A descriptor only as long as it is needed.
        blocked.writable = None;
        if let Some(since) = blocked.since.take() {
            let now = Nanos::now();
            let took = now.since(since).max(0).cast_unsigned();
            self.leg.add_blocked(took, now);
        }
    }

    fn blocked(&self) -> MutexGuard<'_, Blocked> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let room = buffer.remaining();
            match self.receive(room, || socket::receive(&self.stream, buffer)) {
                Ok((_, is_answer)) => {
                    if is_answer {
                        self.take_awaited();
                        self.ask_info();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_room(context))?;
                }
                written => return Poll::Ready(written),
            }
        }
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

#[cfg(test)]
mod tests;
