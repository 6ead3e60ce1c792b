//! Interim answers of HTTP/1 servers (1xx) on their way to HTTP/1 clients. The HTTP library takes them from
//! servers and has no way to give them to clients, so they go past it.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, StatusCode, Version, header::EXPECT};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

use super::{request_body::TryBody, session::Session};

/// How long a body is held back for a server that was asked whether it wants it, and does not say: as
/// curl. Servers that do not know the question wait for the body (RFC 9110, 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);
/// Interim answers that wait for their client, in bytes: no more than one head may have.
const MOST_WAITING: usize = 64 << 10;

/// Interim answers that wait to be written to a client.
#[derive(Debug, Default)]
pub struct Interim {
    is_waiting: AtomicBool,
    /// How many there were, those that are not passed on included.
    count: AtomicU32,
    bytes: Mutex<Vec<u8>>,
}

impl Interim {
    /// To be written before anything else is.
    pub fn take(&self) -> Option<Vec<u8>> {
        if !self.is_waiting.swap(false, Ordering::Relaxed) {
            return None;
        }
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut bytes))
    }

    /// How many there were so far.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    fn add(&self, status: StatusCode, headers: &HeaderMap) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() > MOST_WAITING {
            return;
        }
        let reason = status.canonical_reason().unwrap_or_default();
        bytes.extend(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).bytes());
        for (name, value) in headers {
            let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            for part in parts {
                bytes.extend(part);
            }
        }
        bytes.extend(b"\r\n");
        self.is_waiting.store(true, Ordering::Relaxed);
    }
}

/// Passes on what `request`'s server says before its answer, and holds its body back until the server
/// says that it wants it, if it is to be asked.
pub fn watch(request: &mut Request<TryBody>, session: &Session) {
    if request.version() != Version::HTTP_11 {
        return;
    }
    let asks = request
        .headers()
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let wanted = asks.then(|| {
        let (wanted, waits) = oneshot::channel();
        let body = std::mem::replace(request.body_mut(), TryBody::Empty);
        *request.body_mut() = TryBody::Held(Box::new(Held {
            body,
            waits,
            late: Box::pin(sleep(PATIENCE)),
        }));
        wanted
    });
    let wanted = Mutex::new(wanted);
    let interim = std::sync::Arc::clone(&session.interim);
    hyper::ext::on_informational(request, move |answer| {
        interim.count.fetch_add(1, Ordering::Relaxed);
        if answer.status() != StatusCode::CONTINUE {
            interim.add(answer.status(), answer.headers());
            return;
        }
        // The client is told by the HTTP library, once its body is read.
        let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(wanted) = wanted {
            let _given_up = wanted.send(());
        }
    });
}

/// A body that its server may not want.
pub struct Held {
    /// What is held back.
    pub body: TryBody,
    waits: oneshot::Receiver<()>,
    late: Pin<Box<Sleep>>,
}

impl Held {
    /// Ready when it is not to be held back any longer.
    pub fn poll_wanted(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if Pin::new(&mut self.waits).poll(context).is_ready() {
            return Poll::Ready(());
        }
        self.late.as_mut().poll(context)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}
