//! The client's connection as the HTTP/1 server reads it: only requests that can be understood in one way.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    counted_io::CountedIo,
    framing::Framing,
    half_close::{Busy, Client, Watch},
    interim::Interim,
    reason::Reason,
    receipts::{Passed, Receipts},
};
use crate::{latency::StampedStream, proxy::scratch::with_scratch};

/// How long the head of a request may take from its first byte on: longer than a lost packet or two,
/// and no longer than Envoy and nginx wait (60 s) for whole requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What is wrong with what a client sent, and how the service recognises the request that stands for
/// it.
#[derive(Debug, Default)]
pub struct Refusal {
    reason: OnceLock<Reason>,
    /// No client can guess it.
    path: OnceLock<String>,
    /// It is in the body of a request that was passed on.
    is_in_body: AtomicBool,
}

impl Refusal {
    /// Why the connection's last request is refused, if it is.
    pub fn reason(&self) -> Option<Reason> {
        self.reason.get().copied()
    }

    /// Why the request that is under way fails, if it is because of what its client sent.
    pub fn of_body(&self) -> Option<Reason> {
        self.reason()
            .filter(|_| self.is_in_body.load(Ordering::Relaxed))
    }

    /// Whether a request of this path stands for what is refused.
    pub fn stands_for(&self, path: &str) -> Option<Reason> {
        let is_it = self.path.get().is_some_and(|known| known == path);
        self.reason().filter(|_| is_it)
    }

    /// From now on it is. Gives the request that stands for it: so its answer keeps its place after
    /// those to the requests before.
    fn refuse(&self, reason: Reason, refused: &[u8]) -> Vec<u8> {
        self.reason.get_or_init(|| reason);
        let made = || format!("/refused-{:032x}", rand::random::<u128>());
        let path = self.path.get_or_init(made);
        let method = method_for(refused);
        format!("{method} {path} HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n")
            .into_bytes()
    }
}

/// The method of what stands for a refused request: an answer to HEAD has no body, a refusal's neither
/// (RFC 9110, 9.3.2).
fn method_for(refused: &[u8]) -> &'static str {
    let line = refused.iter().position(|byte| !b"\r\n".contains(byte));
    let is_head = line.is_some_and(|start| refused[start..].starts_with(b"HEAD "));
    if is_head { "HEAD" } else { "GET" }
}

/// Passes only requests that can be understood in one way.
#[derive(Debug)]
pub struct StrictIo {
    io: CountedIo,
    framing: Framing,
    /// Read and not passed yet: the beginning of a head.
    held: Vec<u8>,
    /// Of that, the first byte has come: empty lines may precede it.
    has_begun: bool,
    /// To be passed before anything else is read.
    next: Bytes,
    refusal: Arc<Refusal>,
    /// What goes past the HTTP server to the client.
    interim: Arc<Interim>,
    /// Of that, what is being written.
    past: Bytes,
    /// Whether all that the HTTP server had to write is written.
    is_flushed: bool,
    /// Runs while a head is not whole.
    timer: Option<Pin<Box<Sleep>>>,
    busy: Busy,
    receipts: Arc<Receipts>,
    watch: Watch,
    /// Something of an answer was written since the last request.
    is_answered: bool,
    /// Waits for that answer to be written, to read on.
    reader: Option<Waker>,
}

impl StrictIo {
    /// Reads and writes `io`; says in `refusal` what is wrong with its last request.
    pub fn new(
        io: CountedIo,
        refusal: Arc<Refusal>,
        interim: Arc<Interim>,
        busy: Busy,
        receipts: Arc<Receipts>,
    ) -> Self {
        Self {
            io,
            framing: Framing::default(),
            held: Vec::new(),
            has_begun: false,
            next: Bytes::new(),
            refusal,
            interim,
            past: Bytes::new(),
            is_flushed: true,
            timer: None,
            busy,
            receipts,
            watch: Watch::default(),
            is_answered: false,
            reader: None,
        }
    }

    /// The connection itself, and what was read and not passed.
    pub fn into_parts(self) -> (StampedStream, Bytes) {
        // Nobody looks for the last answer's stamp after this.
        self.receipts.finish_late(self.io.get_ref());
        if self.is_flushed {
            self.receipts.finish_without_write();
        }
        (self.io.into_inner(), self.next)
    }

    /// Reads into `buffer`: how many bytes, 0 at the end.
    fn poll_stream(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        self.receipts.look_ahead();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        Poll::Ready(Ok(buffer.filled().len() - before))
    }

    /// Something is written to the client.
    fn wrote(&mut self) {
        self.is_answered = true;
        self.watch.wrote();
    }

    /// Writes what goes past the HTTP server, where it does not come between the parts of an answer.
    fn poll_past(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(bytes) = self.interim.take().filter(|_| self.is_flushed) {
            let before = std::mem::take(&mut self.past);
            self.past = [&before[..], &bytes].concat().into();
        }
        while !self.past.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.past))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.past.advance(written);
            self.wrote();
        }
        Poll::Ready(Ok(()))
    }

    /// What is to be passed instead of what is refused. Inside a body that is an error.
    fn refuse(&mut self, reason: Reason) -> io::Result<()> {
        let refused = std::mem::take(&mut self.held);
        let instead = self.refusal.refuse(reason, &refused);
        if self.framing.is_inside_body() {
            self.refusal.is_in_body.store(true, Ordering::Relaxed);
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.next = instead.into();
        Ok(())
    }

    /// Looks at what is held; whether there is something to be passed now.
    fn look(&mut self) -> io::Result<bool> {
        let before = self.framing.heads();
        let (passed, verdict) = self.framing.pass(&self.held);
        if passed > 0 {
            let rest = self.held.split_off(passed);
            self.next = std::mem::replace(&mut self.held, rest).into();
            self.measure(before);
        } else if let Err(malformed) = verdict {
            self.refuse(Reason::Malformed(malformed))?;
        } else {
            self.measure(before);
            return Ok(false);
        }
        self.timer = None;
        Ok(true)
    }

    /// What was read last has passed or is held, which matters if it is to be measured.
    fn measure(&mut self, before: u64) {
        let holds = self.held.iter().any(|byte| !b"\r\n".contains(byte));
        let held_before = std::mem::replace(&mut self.has_begun, holds);
        if self.receipts.leg().is_receiving() {
            self.receipts.read(Passed {
                before,
                after: self.framing.heads(),
                goes_on: self.framing.is_inside_body(),
                held_before,
                holds,
            });
        }
    }

    /// Adds to what is held; false at the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let read = with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            let read = self.poll_stream(context, &mut buffer);
            self.held.extend(buffer.filled());
            read
        });
        if let Poll::Ready(read) = read {
            return Poll::Ready(read.map(|count| count > 0));
        }
        let begin = || Box::pin(sleep(HEAD_TIMEOUT));
        let timer = self.timer.get_or_insert_with(begin);
        ready!(timer.as_mut().poll(context));
        self.timer = None;
        Poll::Ready(self.refuse(Reason::HeadTimeout).map(|()| true))
    }
}

impl AsyncRead for StrictIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.receipts.finish_late(this.io.get_ref());
        loop {
            if !this.next.is_empty() {
                let count = this.next.len().min(buffer.remaining());
                buffer.put_slice(&this.next.split_to(count));
                return Poll::Ready(Ok(()));
            }
            // Then it is only the client's end that is waited for.
            let is_answering = this.busy.is_busy() || !this.is_flushed;
            if is_answering && !this.framing.expects_more() {
                let client = this.io.get_ref();
                match this.watch.look(client, this.is_answered, context) {
                    Client::Gone => return Poll::Ready(Ok(())),
                    Client::IsThere => {}
                    Client::Speaks => this.reader = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            if let Some(reason) = this.refusal.reason() {
                // Nothing comes after the request that stands for what was refused.
                return Poll::Ready(if this.framing.is_inside_body() {
                    Err(io::Error::other(reason.code()))
                } else {
                    Ok(())
                });
            }
            this.is_answered = false;
            if this.held.is_empty() {
                let before = buffer.filled().len();
                let count = ready!(this.poll_stream(context, buffer))?;
                let heads = this.framing.heads();
                let (passed, _again) = this.framing.pass(&buffer.filled()[before..]);
                this.held.extend(&buffer.filled()[before + passed..]);
                buffer.set_filled(before + passed);
                this.measure(heads);
                if count == 0 && this.framing.expects_more() {
                    return Poll::Ready(this.refuse(Reason::IncompleteBody));
                }
                if passed > 0 || count == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
            if !this.look()? && !ready!(this.poll_more(context))? {
                // The end: what there is of a head goes nowhere.
                this.held = Vec::new();
                return Poll::Ready(if this.framing.expects_more() {
                    this.refuse(Reason::IncompleteBody)
                } else {
                    Ok(())
                });
            }
        }
    }
}

impl AsyncWrite for StrictIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_past(context))?;
        self.is_flushed = false;
        self.wrote();
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_past(context))?;
        self.is_flushed = false;
        self.wrote();
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The HTTP server flushes once it has nothing left to write.
        let was_flushed = std::mem::replace(&mut self.is_flushed, true);
        let speaks = self.reader.is_some() || !self.held.is_empty();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        ready!(self.poll_past(context))?;
        if !was_flushed {
            let heads = self.framing.heads();
            self.receipts.flushed(self.io.get_ref(), heads, speaks);
        }
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_refused_head_is_a_head() {
        for (refused, method) in [
            (&b"HEAD /a HTTP/1.1\nhost: a"[..], "HEAD"),
            (b"\r\n\r\nHEAD /#b HTTP/1.1\r\n", "HEAD"),
            (b"HEADS / HTTP/1.1\r\n", "GET"),
            (b"head / HTTP/1.1\r\n", "GET"),
            (b"POST /HEAD HTTP/1.1\r\n", "GET"),
            (b"\r\n", "GET"),
            (b"", "GET"),
        ] {
            let refusal = Refusal::default();
            let instead = refusal.refuse(Reason::HeadTimeout, refused);
            let instead = String::from_utf8_lossy(&instead);
            let mut parts = instead.split(' ');
            assert_eq!(parts.next(), Some(method), "{refused:?}");
            let path = parts.next().unwrap_or_default();
            assert_eq!(refusal.stands_for(path), Some(Reason::HeadTimeout));
        }
    }
}
