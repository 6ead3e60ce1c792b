//! The bodies of requests, as they go to a server: once, or kept for further tries.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{body::BoxError, http2::Received, interim::Held};
use crate::latency::Leg;

/// The body of a request, as it comes from the client.
#[derive(Debug)]
pub enum RequestBody {
    /// On a connection of HTTP/1.
    Http1(Incoming),
    /// On a stream of HTTP/2.
    Http2(Received),
}

/// The body of one try.
#[derive(Debug)]
pub enum TryBody {
    /// There is none.
    Empty,
    /// The only try.
    Once(RequestBody),
    /// One of several.
    Kept(KeptTry),
    /// One that waits until its server wants it.
    Held(Box<Held>),
    /// One whose end is stamped.
    Told(Box<(Self, Arc<Leg>)>),
}

/// A body that further tries can send again, as long as it is not too long.
#[derive(Clone, Debug)]
pub struct KeptBody(Arc<Mutex<Kept>>);

/// A try's turn through a kept body.
#[derive(Debug)]
pub struct KeptTry {
    body: KeptBody,
    /// How many of the kept frames it has sent.
    next: usize,
    size: SizeHint,
}

#[derive(Debug)]
struct Kept {
    incoming: RequestBody,
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// Bytes kept, and how many may be.
    length: usize,
    limit: usize,
    /// The body was too long: what was sent is not there any more.
    is_gone: bool,
    has_ended: bool,
    size: SizeHint,
}

impl KeptBody {
    /// Keeps up to `limit` bytes.
    pub fn new(incoming: RequestBody, limit: usize) -> Self {
        let size = incoming.size_hint();
        // One that is known to be too long is not kept in vain.
        let is_gone = size.lower() > limit as u64;
        Self(Arc::new(Mutex::new(Kept {
            incoming,
            frames: VecDeque::new(),
            trailers: None,
            length: 0,
            limit,
            is_gone,
            has_ended: false,
            size,
        })))
    }

    /// Whether another try can send it from its beginning.
    pub fn is_whole(&self) -> bool {
        !self.lock().is_gone
    }

    /// Whether another try can send it without waiting for more of it.
    pub fn is_complete(&self) -> bool {
        let kept = self.lock();
        kept.has_ended && !kept.is_gone
    }

    /// The body of a try.
    pub fn begin(&self) -> TryBody {
        TryBody::Kept(KeptTry {
            body: self.clone(),
            next: 0,
            size: self.lock().size,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptTry {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut kept = self.body.lock();
        if let Some(bytes) = kept.frames.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
        }
        if kept.has_ended {
            let is_new = self.next == kept.frames.len();
            self.next += 1;
            let trailers = kept.trailers.clone().filter(|_| is_new);
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut kept.incoming).poll_frame(context));
        match frame {
            None => kept.has_ended = true,
            Some(Err(_)) => kept.is_gone = true,
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    kept.trailers = Some(trailers.clone());
                    kept.has_ended = true;
                    // These are sent now.
                    self.next = kept.frames.len() + 1;
                } else if let Some(bytes) = frame.data_ref() {
                    kept.length += bytes.len();
                    if kept.length > kept.limit {
                        kept.is_gone = true;
                        kept.frames.clear();
                        self.next = 0;
                    }
                    if !kept.is_gone {
                        kept.frames.push_back(bytes.clone());
                        self.next += 1;
                    }
                    kept.has_ended = kept.incoming.is_end_stream();
                }
                return Poll::Ready(Some(Ok(frame)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.body.lock();
        kept.has_ended
            && self.next >= kept.frames.len()
            && (kept.trailers.is_none() || self.next > kept.frames.len())
    }
}

impl TryBody {
    /// Tells `leg` when the end of the request is about to be written.
    pub fn tell_end(&mut self, leg: &Arc<Leg>) {
        if self.is_end_stream() {
            leg.ask_way();
            return;
        }
        let body = std::mem::replace(self, Self::Empty);
        *self = Self::Told(Box::new((body, Arc::clone(leg))));
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Http1(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Http2(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

impl Body for TryBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Once(incoming) => Pin::new(incoming).poll_frame(context),
            Self::Kept(kept) => kept.poll_frame(context),
            Self::Held(held) => {
                ready!(held.poll_wanted(context));
                let body = std::mem::replace(&mut held.body, Self::Empty);
                *self = body;
                self.poll_frame(context)
            }
            Self::Told(told) => {
                let (body, leg) = &mut **told;
                let frame = ready!(Pin::new(&mut *body).poll_frame(context));
                if frame.is_none() || body.is_end_stream() {
                    leg.ask_way();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(incoming) => incoming.is_end_stream(),
            Self::Kept(kept) => kept.is_end_stream(),
            Self::Held(held) => held.body.is_end_stream(),
            Self::Told(told) => told.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Once(incoming) => incoming.size_hint(),
            Self::Kept(kept) => kept.size,
            Self::Held(held) => held.body.size_hint(),
            Self::Told(told) => told.0.size_hint(),
        }
    }
}
