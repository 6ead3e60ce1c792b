//! HTTP/2 connections to servers: one per server and pod, shared by all requests.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{ConnectError, Key};
use crate::proxy::{
    PodProxy,
    http::{
        batched_io::{Flusher, batched},
        joined_frames,
        request_body::TryBody,
    },
};

/// A server that vanished without a word is noticed after this and as long again.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Windows as large as browsers': one slow stream does not hold up the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

type Sender = SendRequest<TryBody>;

/// The connection to each server.
#[derive(Debug, Default)]
pub struct Pool(Mutex<HashMap<Key, Arc<Slot>>>);

/// The connection to one server. Locked while it is made, so that requests that come meanwhile wait for
/// the same one.
#[derive(Debug, Default)]
struct Slot(tokio::sync::Mutex<Option<Shared>>);

/// A connection that requests share.
#[derive(Clone, Debug)]
pub struct Shared {
    sender: Sender,
    /// The server takes no new requests on it.
    is_retired: Arc<AtomicBool>,
}

impl Shared {
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.is_retired.load(Ordering::Relaxed)
    }
}

impl Pool {
    /// The connection to a server, made if there is none.
    pub async fn connection(
        &self,
        pod: &Arc<PodProxy>,
        key: Key,
        within: Duration,
    ) -> Result<Shared, ConnectError> {
        let slot = Arc::clone(self.lock().entry(key).or_default());
        let mut slot = slot.0.lock().await;
        if let Some(shared) = slot.as_ref().filter(|shared| shared.is_usable()) {
            return Ok(shared.clone());
        }
        *slot = None;
        let shared = Shared {
            sender: Box::pin(connect(pod, key, within)).await?,
            is_retired: Arc::default(),
        };
        *slot = Some(shared.clone());
        Ok(shared)
    }

    /// Forgets connections that have ended.
    pub fn sweep(&self) {
        self.lock().retain(|_, slot| {
            let slot = slot.0.try_lock();
            slot.map_or(true, |slot| slot.as_ref().is_some_and(Shared::is_usable))
        });
    }

    /// Lets the connection with this key end with the requests that are under way on it.
    pub fn forget(&self, key: Key) {
        self.lock().remove(&key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(pod: &Arc<PodProxy>, key: Key, within: Duration) -> Result<Sender, ConnectError> {
    let stream = super::connect(pod, key, within).await?;
    let (io, flusher) = batched(stream, None, 0);
    let (sender, connection) = http2::Builder::new(Flushing::new(flusher))
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(joined_frames::LONGEST)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| ConnectError::Failed(std::io::Error::other(error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("HTTP/2 connection to {} ended: {error}", key.server);
        }
    });
    Ok(sender)
}

/// Spawns hyper's tasks for one connection. The first is the one that reads and writes
/// (`hyper::proto::h2::client::handshake`).
#[derive(Clone)]
struct Flushing(Arc<Mutex<Option<Flusher>>>);

impl Flushing {
    fn new(flusher: Flusher) -> Self {
        Self(Arc::new(Mutex::new(Some(flusher))))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Flushing {
    fn execute(&self, task: F) {
        let flusher = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(flusher) = flusher else {
            tokio::spawn(task);
            return;
        };
        tokio::spawn(async move {
            let mut task = pin!(task);
            poll_fn(|context| {
                let ended = task.as_mut().poll(context);
                flusher.flush(context);
                ended
            })
            .await;
        });
    }
}

/// Why a request was not answered.
#[derive(Debug)]
pub enum SendError {
    /// The server says that it has not begun with it, or nothing of it was sent.
    Refused,
    /// The connection or the stream ended first.
    Reset(hyper::Error),
}

/// Sends a request and waits until its answer begins.
pub async fn send(
    mut connection: Shared,
    request: Request<TryBody>,
) -> Result<Response<Incoming>, SendError> {
    match connection.sender.try_send_request(request).await {
        Ok(response) => Ok(response),
        Err(mut error) => {
            let not_sent = error.take_message().is_some();
            let error = error.into_error();
            let refused = Refused::of(&error);
            if not_sent || refused == Some(Refused::ByGoAway) {
                connection.is_retired.store(true, Ordering::Relaxed);
            }
            if not_sent || refused.is_some() {
                Err(SendError::Refused)
            } else {
                Err(SendError::Reset(error))
            }
        }
    }
}

/// How a server says that it has not begun with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// REFUSED_STREAM (RFC 9113, 8.7).
    Stream,
    /// Its stream is above the last that GOAWAY names (RFC 9113, 6.8).
    ByGoAway,
}

impl Refused {
    fn of(error: &hyper::Error) -> Option<Self> {
        let error = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
        if error.is_go_away() && error.is_remote() {
            return (error.reason() == Some(h2::Reason::NO_ERROR)).then_some(Self::ByGoAway);
        }
        (error.reason() == Some(h2::Reason::REFUSED_STREAM)).then_some(Self::Stream)
    }
}
