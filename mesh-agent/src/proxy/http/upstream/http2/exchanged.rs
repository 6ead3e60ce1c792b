//! A request and its answer, on one stream to a server.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::SendStream;
use http::{HeaderValue, Method, Request, Response, Version, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame};

use super::connection::{Begun, NotSent, Open, Shared};
use crate::{
    latency::Nanos,
    proxy::http::{
        body::BoxError,
        hearing::{Hearing, Measuring},
        http2::{Received, Sending, Waiting, Watching},
        request_body::TryBody,
    },
};

/// Why a request was not answered.
#[derive(Debug)]
pub enum SendError {
    /// The server says that it has not begun with it, or nothing of it was sent.
    Refused,
    /// The connection or the stream ended first.
    Reset(h2::Error),
}

/// Sends a request and waits until its answer begins. What the server says before is for `client`.
pub async fn send(
    connection: Shared,
    request: Request<TryBody>,
    client: Option<&Waiting>,
    measuring: Measuring,
) -> Result<Response<Answer>, SendError> {
    let (mut head, body) = request.into_parts();
    let is_connect = head.method == Method::CONNECT;
    let is_all = body.is_end_stream() && !is_connect;
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || has_content(&head.method))
    {
        let length = HeaderValue::from(length);
        head.headers.entry(CONTENT_LENGTH).or_insert(length);
    }
    // It is named by `Host` then, which the HTTP/2 library lets through so only.
    if head.uri.authority().is_none() {
        head.version = Version::HTTP_11;
    }
    let head = Request::from_parts(head, ());
    let begun = connection.begin(head, is_all, measuring).await;
    let Begun {
        mut answer,
        body: stream,
        open,
        watching,
    } = match begun {
        Ok(begun) => begun,
        Err(NotSent::NotTaken(_)) => {
            connection.retire();
            return Err(SendError::Refused);
        }
        Err(NotSent::Faulty(error)) => return Err(failed(&connection, error)),
    };
    let (mut sending, mut tunnel) = (None, None);
    if is_connect {
        tunnel = Some(stream);
    } else if !is_all {
        sending = Some(Sending::new(stream, body));
    }
    let answered = poll_fn(|context| {
        poll_rest(&mut sending, context);
        while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(context) {
            if let Some(watching) = &watching {
                watching.forget_interim();
            }
            if let Some(client) = client {
                client.interim(interim);
            }
        }
        Pin::new(&mut answer).poll(context)
    })
    .await;
    let (head, incoming) = answered
        .map_err(|error| failed(&connection, error))?
        .into_parts();
    let answer = Answer {
        incoming: Received::from_server(&head.headers, incoming),
        request: sending.map(Box::new),
        tunnel,
        watching,
        _open: open,
    };
    Ok(Response::from_parts(head, answer))
}

/// Sends more of a request, if there is more. What becomes of it, its answer tells.
fn poll_rest(sending: &mut Option<Sending<TryBody>>, context: &mut Context<'_>) {
    if let Some(body) = sending
        && body.poll(context).is_ready()
    {
        *sending = None;
    }
}

/// Whether a length of 0 says something (RFC 9110, 8.6).
fn has_content(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT
    )
}

/// The body of an answer, and what is left of its request.
#[derive(Debug)]
pub struct Answer {
    incoming: Received,
    request: Option<Box<Sending<TryBody>>>,
    /// What goes to the server after the answer to CONNECT.
    tunnel: Option<SendStream<Bytes>>,
    watching: Option<Watching>,
    _open: Open,
}

impl Answer {
    /// What can be heard of its stream, and since when there was a connection, if that is measured.
    pub fn hearing(&self) -> Option<(Hearing, Option<Nanos>)> {
        let watching = self.watching.as_ref()?;
        Some((watching.hearing(), Some(watching.since())))
    }

    /// The next part of it.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.poll_request(context);
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    /// Sends more of the request.
    pub fn poll_request(&mut self, context: &mut Context<'_>) {
        if let Some(request) = &mut self.request
            && request.poll(context).is_ready()
        {
            self.request = None;
        }
    }

    /// What is left of the request.
    pub fn take_request(&mut self) -> Option<Box<Sending<TryBody>>> {
        self.request.take()
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// The stream, after the answer to CONNECT: what goes to the server, and what comes from it.
    pub fn into_tunnel(self) -> Option<(SendStream<Bytes>, Received)> {
        Some((self.tunnel?, self.incoming))
    }
}

fn failed(connection: &Shared, error: h2::Error) -> SendError {
    match Refused::of(&error) {
        None => SendError::Reset(error),
        Some(Refused::Stream) => SendError::Refused,
        Some(Refused::ByGoAway) => {
            connection.retire();
            SendError::Refused
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
    fn of(error: &h2::Error) -> Option<Self> {
        match error.reason().filter(|_| error.is_remote())? {
            h2::Reason::NO_ERROR if error.is_go_away() => Some(Self::ByGoAway),
            h2::Reason::REFUSED_STREAM if error.is_reset() => Some(Self::Stream),
            _ => None,
        }
    }
}
