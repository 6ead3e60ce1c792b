//! HTTP/1 connections to servers. A connection is driven by the task whose request it carries: nobody
//! has to be woken up for it, and nothing runs while it is idle.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    ConnectError, Key,
    heard_out::{HeardOut, Writing},
};
use crate::{
    latency::{Leg, Nanos, StampedStream},
    proxy::{
        PodProxy,
        http::{
            body::BoxError,
            hearing::{Hearing, Measuring},
            request_body::TryBody,
        },
    },
};

/// Most idle connections per server and pod.
const MOST_IDLE: usize = 128;
/// Largest head of an answer, in bytes.
const LARGEST_HEAD: usize = 256 << 10;

/// A connection to a server.
pub struct Upstream {
    key: Key,
    sender: SendRequest<TryBody>,
    connection: Connection<TokioIo<HeardOut<StampedStream>>, TryBody>,
    writing: Arc<Writing>,
    /// Its packets.
    leg: Arc<Leg>,
    /// How long it is kept without a request.
    idle: Duration,
    /// It has carried a request before.
    pub is_reused: bool,
}

/// Idle connections, the one used last on top.
#[derive(Debug, Default)]
pub struct Pool(Mutex<HashMap<Key, Vec<Idle>>>);

struct Idle {
    upstream: Box<Upstream>,
    until: Instant,
}

/// Why a request was not answered.
pub enum SendError {
    /// Nothing of it was sent.
    NotSent(Box<Request<TryBody>>, hyper::Error),
    /// The connection ended first.
    Reset(hyper::Error),
}

impl Pool {
    /// An idle connection that is still good, if there is one.
    pub async fn take(&self, key: Key) -> Option<Box<Upstream>> {
        loop {
            let kept = {
                let mut pool = self.lock();
                let kept = pool.get_mut(&key)?;
                let last = kept.pop();
                if kept.is_empty() {
                    pool.remove(&key);
                }
                last?
            };
            if kept.until <= Instant::now() {
                continue;
            }
            let mut upstream = kept.upstream;
            let is_open = poll_fn(|context| Poll::Ready(upstream.poll(context).is_pending())).await;
            if is_open && upstream.sender.is_ready() {
                return Some(upstream);
            }
        }
    }

    /// Keeps a connection that carries no request.
    pub fn put(&self, upstream: Box<Upstream>) {
        let until = Instant::now() + upstream.idle;
        let mut pool = self.lock();
        let idle = pool.entry(upstream.key).or_default();
        if idle.len() < MOST_IDLE {
            idle.push(Idle { upstream, until });
        }
    }

    /// Closes connections that were idle for too long, or that their servers closed.
    pub fn sweep(&self) {
        let now = Instant::now();
        // Who takes a connection watches it again.
        let mut nobody = Context::from_waker(Waker::noop());
        self.lock().retain(|_, kept| {
            kept.retain_mut(|kept| {
                kept.until > now && kept.upstream.poll(&mut nobody).is_pending()
            });
            !kept.is_empty()
        });
    }

    /// Closes the idle connections with this key.
    pub fn forget(&self, key: Key) {
        self.lock().remove(&key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Vec<Idle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// A new connection.
    pub async fn connect(
        pod: &Arc<PodProxy>,
        key: Key,
        within: Duration,
        idle: Duration,
    ) -> Result<Box<Self>, ConnectError> {
        let stream = super::connect(pod, key, within).await?;
        Self::new(stream, key, idle)
            .await
            .map_err(|error| ConnectError::Failed(std::io::Error::other(error)))
    }

    /// Speaks HTTP on a new connection.
    pub async fn new(stream: TcpStream, key: Key, idle: Duration) -> hyper::Result<Box<Self>> {
        let mut builder = http1::Builder::new();
        builder
            .preserve_header_case(true)
            .max_buf_size(LARGEST_HEAD);
        // Only makes the halves.
        let leg = Arc::<Leg>::default();
        let stream = StampedStream::new(stream, Arc::clone(&leg));
        let writing = Arc::<Writing>::default();
        let stream = HeardOut::new(stream, Arc::clone(&writing));
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Self {
            key,
            sender,
            connection,
            writing,
            leg,
            idle,
            is_reused: false,
        }))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.connection.poll_without_shutdown(context)
    }

    /// Sends a request and waits until its answer begins.
    pub async fn send(
        mut self: Box<Self>,
        mut request: Request<TryBody>,
        pod: &Arc<PodProxy>,
        measuring: Measuring,
    ) -> Result<Response<Answer>, SendError> {
        let is_new = !self.is_reused;
        let measured = measuring.is_on().then(|| {
            let message = self.leg.begin(measuring.is_whole());
            request.body_mut().tell_end(&self.leg);
            let hearing = Hearing::Connection(Arc::clone(&self.leg), message, is_new);
            (hearing, is_new.then(Nanos::now))
        });
        if measured.is_none() && self.leg.is_receiving() {
            self.leg.stop();
        }
        self.writing.begin();
        let this = &mut *self;
        let mut answer = pin!(this.sender.try_send_request(request));
        let mut open = true;
        let answered = poll_fn(|context| {
            if let Poll::Ready(answered) = answer.as_mut().poll(context) {
                return Poll::Ready(answered);
            }
            if open {
                open = this.connection.poll_without_shutdown(context).is_pending();
            }
            answer.as_mut().poll(context)
        })
        .await;
        if measured.is_some() {
            this.leg.ask_nothing();
        }
        match answered {
            Ok(response) => Ok(response.map(|incoming| Answer {
                incoming,
                measured,
                upstream: Some(self),
                is_open: open,
                pod: Arc::downgrade(pod),
            })),
            Err(mut error) => Err(match error.take_message() {
                Some(request) => SendError::NotSent(Box::new(request), error.into_error()),
                None => SendError::Reset(error.into_error()),
            }),
        }
    }
}

/// The body of an answer, with the connection it comes over.
pub struct Answer {
    incoming: Incoming,
    upstream: Option<Box<Upstream>>,
    /// Its packets, and since when it was there if it is new, if that is measured.
    measured: Option<(Hearing, Option<Nanos>)>,
    /// The connection has not ended yet.
    is_open: bool,
    pod: Weak<PodProxy>,
}

impl Answer {
    /// The connection, which is the client's own now: the server switched protocols. With what it said
    /// already. `None` if it has ended.
    pub async fn into_tunnel(mut self) -> Option<(StampedStream, Bytes)> {
        let mut upstream = self.upstream.take()?;
        if self.is_open {
            // Ends as soon as the answer is dealt with; what cannot be written any more would never be.
            poll_fn(|context| match upstream.poll(context) {
                Poll::Pending if upstream.writing.has_failed() => Poll::Ready(Ok(())),
                polled => polled,
            })
            .await
            .ok()?;
        }
        let parts = upstream.connection.into_parts();
        Some((parts.io.into_inner().into_inner(), parts.read_buf))
    }

    /// It began with what came in last: what came before was only said before it.
    pub fn began_just_now(&self) {
        if let Some((Hearing::Connection(leg, ..), _)) = &self.measured {
            leg.began_with_last();
        }
    }

    /// What can be heard of its connection, and since when that was there if it is new, if it is
    /// measured.
    pub fn hearing(&self) -> Option<(Hearing, Option<Nanos>)> {
        self.measured.clone()
    }

    /// The next part of it.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
                if frame.is_none() || self.incoming.is_end_stream() {
                    self.give_back(context);
                }
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
            let Some(upstream) = self.upstream.as_mut().filter(|_| self.is_open) else {
                return Poll::Pending;
            };
            if upstream.poll(context).is_ready() {
                // What it read last is still to be handed on.
                self.is_open = false;
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) else {
                return Poll::Pending;
            };
            if frame.is_none() || self.incoming.is_end_stream() {
                self.give_back(context);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
    }

    /// The answer is complete: keeps the connection if it can carry another request.
    fn give_back(&mut self, context: &mut Context<'_>) {
        let Some(mut upstream) = self.upstream.take().filter(|_| self.is_open) else {
            return;
        };
        if upstream.poll(context).is_pending()
            && upstream.sender.is_ready()
            && !upstream.writing.has_failed()
            && let Some(pod) = self.pod.upgrade()
        {
            upstream.is_reused = true;
            pod.pools.here().http1.put(upstream);
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// How much comes.
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Answer {
    /// An answer without a body (HEAD, 204, 304, a length of 0) is not read, and its connection is as good as any.
    fn drop(&mut self) {
        if self.upstream.is_some() && self.incoming.is_end_stream() {
            // Who takes the connection watches it again.
            self.give_back(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle")
            .field("server", &self.upstream.key.server)
            .finish_non_exhaustive()
    }
}
