//! A TCP connection whose packets can be measured.
//!
//! A connection that was stamped looks for room to write by itself (`room`), and once it is stamped again and again the
//! runtime is to watch it for reading only (`watched`). One that was never stamped is as any other.

use std::{
    io::{self, IoSlice},
    mem::take,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    cards,
    control_messages::{Stamps, TransmitStamp},
    leg::Leg,
    room::Room,
    socket::{self, Asked},
    was_stamped::WasStamped,
    watched::Watched,
};

/// Before that nothing is sent again: a probe for lost segments waits for two ticks of the kernel's clock at least
/// (`TCP_TIMEOUT_MIN` of include/net/tcp.h, `tcp_schedule_loss_probe` of net/ipv4/tcp_output.c), of 1 to 4 ms each. What is
/// found out by the acknowledgement of later segments is sooner only where the network is that fast.
const SLOW: Duration = Duration::from_millis(2);

/// A TCP connection whose packets can be measured.
#[derive(Debug)]
pub struct StampedStream {
    socket: Watched,
    leg: Arc<Leg>,
    room: Room,
    /// Whether its socket gives stamps of cards: a first card may come later than the connection.
    asks_cards: AtomicBool,
    /// A write was stamped; and another one.
    was_stamped: AtomicBool,
    is_often_stamped: AtomicBool,
}

impl StampedStream {
    /// One that nothing is wanted of yet.
    pub fn new(stream: TcpStream, leg: Arc<Leg>) -> Self {
        Self {
            socket: Watched::Both(stream),
            leg,
            room: Room::default(),
            asks_cards: AtomicBool::new(false),
            was_stamped: AtomicBool::new(false),
            is_often_stamped: AtomicBool::new(false),
        }
    }

    /// The same, that nothing is wanted of any more.
    pub fn into_was_stamped(self) -> io::Result<WasStamped> {
        let stream = self.socket.into_stream()?;
        Ok(WasStamped::new(stream, self.leg, self.room))
    }

    /// The connection, to read from and to end.
    pub fn into_stream(self) -> io::Result<TcpStream> {
        self.socket.into_stream()
    }

    /// What is known of its packets.
    pub const fn leg(&self) -> &Arc<Leg> {
        &self.leg
    }

    /// Takes the stamps that have come; says how many there were.
    pub fn take_stamps(&self) -> usize {
        let mut taken = 0;
        self.leg.stamped(|each| {
            taken = socket::drain(&self.socket, each);
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
    /// is. It came `away` after that had left, if that is known: long enough for some of it to have been lost.
    pub fn take_way(&self, away: Option<Duration>) {
        let is_slow = away.is_some_and(|away| away >= SLOW);
        if is_slow {
            // That it was sent again, too, if it was.
            self.take_stamps();
        } else if self.leg.is_waiting() {
            self.take_awaited();
        }
        if self.leg.wants_info() || is_slow {
            self.ask_info();
        }
    }

    fn take_awaited(&self) {
        // As a rule it is one, and a look at an empty queue costs as much.
        let one = |each: &mut dyn FnMut(TransmitStamp)| socket::take_one(&self.socket, each);
        if cards::are_used() || !self.leg.stamped(one) {
            self.take_stamps();
        }
    }

    fn ask_info(&self) {
        if let Ok(info) = socket::tcp_info(&self.socket) {
            self.leg.informed(info);
        }
    }

    /// Whether stamps can be asked for, from now on.
    pub fn prepare(&self) -> bool {
        // Asked at each turn of a task, whether something is there or not.
        let with_cards = cards::are_used();
        let is_prepared = self.leg.is_prepared();
        let has_all = is_prepared && (!with_cards || self.asks_cards.load(Ordering::Relaxed));
        has_all || self.ask_kernel(with_cards) || is_prepared
    }

    #[cold]
    fn ask_kernel(&self, with_cards: bool) -> bool {
        let prepared = socket::prepare_stream(&self.socket, with_cards);
        if let Err(error) = &prepared
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!("the kernel gives no packet timestamps: {error}");
        }
        if prepared.is_ok() {
            self.asks_cards.store(with_cards, Ordering::Relaxed);
            self.leg.prepared();
        }
        prepared.is_ok()
    }

    /// Ready when there may be something to read.
    pub fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Here, as who waits to read is known again at once.
        if take(self.is_often_stamped.get_mut()) {
            self.socket.read_only();
        }
        self.socket.poll_read_ready(context)
    }

    /// Looks at what comes next: how much is there.
    pub fn poll_peek(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.socket.poll_peek(context)
    }

    /// Reads into the room that `buffer` has, with stamps if they are wanted.
    pub fn try_read_more(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        if !(self.leg.is_receiving() && self.prepare()) {
            let (count, _) = self.read(room, || socket::read(&self.socket, buffer))?;
            return Ok(count);
        }
        let (count, stamps) = self.read(room, || socket::receive(&self.socket, buffer))?;
        if count > 0 {
            self.leg.arrived(stamps);
        }
        Ok(count)
    }

    /// Runs `read`, which has room for so many bytes, once: how many came, and their stamps.
    fn read(
        &self,
        room: usize,
        read: impl FnOnce() -> io::Result<(usize, Option<Stamps>)>,
    ) -> io::Result<(usize, Option<Stamps>)> {
        let mut got = None;
        let tried = self.socket.try_read(|| {
            let (count, stamps) = read()?;
            got = Some((count, stamps));
            // There is no more, which the runtime is told so: what its own read does, too.
            if count > 0 && count < room {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        got.map_or_else(|| tried.map(|()| (0, None)), Ok)
    }

    /// Writes as much as there is room for, with stamps if they are wanted.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let wanted = self.leg.asked().filter(|_| self.prepare());
        let asked = wanted.filter(|_| self.may_ask());
        let asked = asked.map(|asked| {
            // Where the socket gives none, the card's would take the place of the kernel's.
            if self.asks_cards.load(Ordering::Relaxed) && self.leg.may_have_card() {
                asked.by_card()
            } else {
                asked
            }
        });
        if let Watched::Both(stream) = &self.socket
            && !self.leg.is_prepared()
        {
            return stream.try_write_vectored(slices);
        }
        // Without the runtime, which would not try if it believes that there is no room: where there was none, the
        // system call must have said so for the epoll to hear of it.
        let written = socket::send(&self.socket, slices, asked);
        self.room.wrote(&written, &self.leg);
        let count = written?;
        let wanted = wanted.map(|_| asked.unwrap_or(Asked::NOTHING));
        self.leg.wrote(count, wanted);
        if let Some(asked) = asked {
            self.stamped(asked);
        }
        Ok(count)
    }

    /// Something was written whose stamps are to come.
    fn stamped(&self, asked: Asked) {
        if let Watched::Reading(_) = self.socket {
            // It has come by now, as a rule, and then it wakes up nobody. Others come later, and are as many turns.
            if asked == Asked::SENT {
                self.take_awaited();
            }
        } else if self.was_stamped.swap(true, Ordering::Relaxed) {
            self.is_often_stamped.store(true, Ordering::Relaxed);
        }
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

    /// After there was no room to write: ready when there may be.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Watched::Both(stream) = &self.socket
            && !self.leg.is_prepared()
        {
            return stream.poll_write_ready(context);
        }
        ready!(self.room.poll(&self.socket, context))?;
        // What it was woken for may have been a stamp.
        self.take_stamps();
        Poll::Ready(Ok(()))
    }

    /// Nothing more is written.
    pub fn end(&self) -> io::Result<()> {
        match SockRef::from(&self.socket).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads, with stamps if `is_stamped`.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        is_stamped: bool,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            let room = buffer.remaining();
            let read = if is_stamped {
                self.read(room, || socket::receive(&self.socket, buffer))
            } else {
                self.read(room, || socket::read(&self.socket, buffer))
            };
            match read {
                Ok((count, stamps)) => {
                    if is_stamped
                        && count > 0
                        && let Some(first) = self.leg.arrived(stamps)
                    {
                        self.take_way(first.away);
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
        let this = &mut *self;
        // Before something comes: it may be the only socket for which the kernel stamps, and before Linux 6.2 it cannot be
        // prepared while something is not acknowledged.
        let is_stamped = this.leg.is_receiving() && this.prepare();
        match &mut this.socket {
            Watched::Both(stream) if !is_stamped => Pin::new(stream).poll_read(context, buffer),
            _ => this.poll_receive(context, buffer, is_stamped),
        }
    }
}

impl AsFd for StampedStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
        let this = &mut *self;
        let is_as_any = !this.leg.is_prepared() && this.leg.asked().is_none();
        match &mut this.socket {
            Watched::Both(stream) if is_as_any => {
                Pin::new(stream).poll_write_vectored(context, slices)
            }
            _ => this.poll_send(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}

#[cfg(test)]
mod tests;
