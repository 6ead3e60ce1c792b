//! One connection to a server.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::{net::TcpStream, sync::Mutex};

use crate::proxy::{
    PodProxy,
    http::{
        batched_io::batched,
        framing::LARGEST_HEAD,
        hearing::Measuring,
        http2::{CONNECTION_WINDOW, Keepalive, STREAM_WINDOW, StreamStamps, Watching, listened_to},
        joined_frames,
        upstream::{self, ConnectError, Key},
    },
};

/// See [`Keepalive`].
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How many requests are sent at once until the server says how many it takes.
const FIRST_STREAMS: usize = 100;

/// A connection that requests share.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Locked until the server takes another request: those that come meanwhile wait in line.
    sender: Mutex<SendRequest<Bytes>>,
    /// The server takes no new requests on it.
    is_retired: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    stamps: Arc<StreamStamps>,
}

/// A stream that is open, until dropped.
#[derive(Debug)]
pub struct Open(Arc<AtomicUsize>);

impl Open {
    fn one_of(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Whether requests can be sent over it.
    pub fn is_usable(&self) -> bool {
        !self.0.is_retired.load(Ordering::Relaxed)
    }

    /// No more requests are to be sent over it.
    pub fn retire(&self) {
        self.0.is_retired.store(true, Ordering::Relaxed);
    }

    /// Sends a request's head once the server takes another one. `is_all`: there is no body.
    pub async fn begin(
        &self,
        head: Request<()>,
        is_all: bool,
        measuring: Measuring,
    ) -> Result<Begun, NotSent> {
        let mut sender = self.0.sender.lock().await;
        poll_fn(|context| sender.poll_ready(context))
            .await
            .map_err(NotSent::NotTaken)?;
        let (answer, body) = sender.send_request(head, is_all).map_err(NotSent::Faulty)?;
        // Nothing of it has been written yet.
        let watching = measuring.is_on().then(|| {
            let stamps = Arc::clone(&self.0.stamps);
            Watching::new(stamps, answer.stream_id().into(), measuring.is_whole())
        });
        if !is_all {
            // A stream has one waker for being opened and for its body: nobody else may wait for the former while
            // the body is being sent.
            let _its_answer_tells = poll_fn(|context| sender.poll_ready(context)).await;
        }
        Ok(Begun {
            answer,
            body,
            open: Open::one_of(&self.0.open),
            watching,
        })
    }
}

/// A request whose head was sent.
pub struct Begun {
    /// What comes back.
    pub answer: ResponseFuture,
    /// Where the rest goes.
    pub body: SendStream<Bytes>,
    /// That its stream is open.
    pub open: Open,
    /// That its packets are stamped, if they are.
    pub watching: Option<Watching>,
}

/// Why a request was not sent.
pub enum NotSent {
    /// The server takes no more on this connection.
    NotTaken(h2::Error),
    /// It is none that can be sent.
    Faulty(h2::Error),
}

/// A new connection.
pub async fn connect(
    pod: &Arc<PodProxy>,
    key: Key,
    within: Duration,
) -> Result<Shared, ConnectError> {
    let stream = upstream::connect(pod, key, within).await?;
    let is_retired: Arc<AtomicBool> = Arc::default();
    let open: Arc<AtomicUsize> = Arc::default();
    let stamps: Arc<StreamStamps> = Arc::default();
    let (sender, driven) = speak(stream, Arc::clone(&open), Arc::clone(&stamps))
        .await
        .map_err(|error| ConnectError::Failed(io::Error::other(error)))?;
    let ended = Arc::clone(&is_retired);
    tokio::spawn(async move {
        if let Err(error) = driven.await {
            tracing::debug!("HTTP/2 connection to {} ended: {error}", key.server);
        }
        ended.store(true, Ordering::Relaxed);
    });
    Ok(Shared(Arc::new(Inner {
        sender: Mutex::new(sender),
        is_retired,
        open,
        stamps,
    })))
}

/// Speaks HTTP/2 on a new connection, which ends when nobody uses it any more. The future drives it. It is watched
/// while streams are `open`.
pub async fn speak(
    stream: TcpStream,
    open: Arc<AtomicUsize>,
    stamps: Arc<StreamStamps>,
) -> Result<(SendRequest<Bytes>, impl Future<Output = io::Result<()>>), h2::Error> {
    let (io, flusher) = batched(stream, None, 0, stamps);
    let (io, heard) = listened_to(io);
    // What it says first is written in the connection's first turn.
    let (sender, mut connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(FIRST_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(joined_frames::LONGEST)
        .max_header_list_size(LARGEST_HEAD as u32)
        .handshake(io)
        .await?;
    let mut keepalive = Keepalive::new(connection.ping_pong(), heard, KEEPALIVE);
    let driven = poll_fn(move |context| {
        let ended = Pin::new(&mut connection).poll(context);
        flusher.flush(context);
        let is_idle = || open.load(Ordering::Relaxed) == 0;
        // Last: what came just now is a sign of life.
        if ended.is_pending() && keepalive.poll(is_idle, context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ended.map_err(io::Error::other)
    });
    Ok((sender, driven))
}
