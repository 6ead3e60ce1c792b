//! One try of a request: a connection, and the request on it.

use std::{net::SocketAddr, time::Duration};

use http::{Request, Response, Version};

use super::{
    body::{AnswerBody, BoxError},
    hearing::Measuring,
    http2::Waiting,
    reason::Reason,
    request_body::TryBody,
    session::Session,
    upstream::{
        ConnectError, Key,
        http1::{self, Upstream},
        http2,
    },
};
use crate::{policy::retry::TryOutcome, proxy::destinations::Destination};

/// Why a try has no answer.
#[derive(Debug, thiserror::Error)]
pub enum TryError {
    /// No connection came about.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// No connection came about in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The server has not begun with it.
    #[error("refused")]
    Refused,
    /// The connection or the stream ended first.
    #[error("no answer: {0}")]
    Reset(BoxError),
    /// The same on a connection that was kept: its server may have closed it at the very moment that
    /// the request was sent.
    #[error("no answer on a kept connection: {0}")]
    Stale(BoxError),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

impl TryError {
    /// As the retry policy sees it.
    pub const fn outcome(&self) -> TryOutcome<'static> {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => TryOutcome::ConnectFailure,
            Self::Refused => TryOutcome::RefusedStream,
            Self::Reset(_) | Self::Stale(_) => TryOutcome::Reset,
            Self::Timeout => TryOutcome::PerTryTimeout,
        }
    }

    /// As the client is told.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Connect(_) => Reason::ConnectFailure,
            Self::ConnectTimeout => Reason::ConnectTimeout,
            Self::Refused => Reason::RefusedStream,
            Self::Reset(_) | Self::Stale(_) => Reason::UpstreamReset,
            Self::Timeout => Reason::PerTryTimeout,
        }
    }
}

impl From<ConnectError> for TryError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(error) => Self::Connect(error),
            ConnectError::Timeout => Self::ConnectTimeout,
        }
    }
}

/// Sends a request to `server` and waits until its answer begins. `left` is left of its deadline; `measuring` says whether
/// its packets are stamped. What the server says before is for `client`, if that speaks HTTP/2.
pub async fn send(
    session: &Session,
    destination: &Destination,
    server: SocketAddr,
    request: Request<TryBody>,
    left: Option<Duration>,
    measuring: Measuring,
    client: Option<&Waiting>,
) -> Result<Response<AnswerBody>, TryError> {
    let policy = &destination.policy;
    let key = Key {
        server,
        seen_as: session.seen_as,
    };
    let within = left.map_or(policy.connect, |left| left.min(policy.connect));
    if request.version() == Version::HTTP_2 {
        send_http2(session, key, request, within, client, measuring).await
    } else {
        send_http1(session, key, request, within, policy.idle, measuring).await
    }
}

async fn send_http1(
    session: &Session,
    key: Key,
    mut request: Request<TryBody>,
    within: Duration,
    idle: Duration,
    measuring: Measuring,
) -> Result<Response<AnswerBody>, TryError> {
    let pod = &session.pod;
    loop {
        let upstream = upstream(session, key, within, idle).await?;
        let is_reused = upstream.is_reused;
        let interim_before = session.interim.count();
        match upstream.send(request, pod, measuring).await {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                if session.interim.count() > interim_before {
                    body.began_just_now();
                }
                head.version = Version::HTTP_11;
                return Ok(Response::from_parts(head, AnswerBody::http1(body)));
            }
            Err(http1::SendError::NotSent(unsent, _)) if is_reused => request = *unsent,
            Err(http1::SendError::Reset(error)) if is_reused => {
                return Err(TryError::Stale(error.into()));
            }
            Err(http1::SendError::NotSent(_, error) | http1::SendError::Reset(error)) => {
                return Err(TryError::Reset(error.into()));
            }
        }
    }
}

/// A connection: a kept one, if there is one.
async fn upstream(
    session: &Session,
    key: Key,
    within: Duration,
    idle: Duration,
) -> Result<Box<Upstream>, ConnectError> {
    let pod = &session.pod;
    if let Some(upstream) = pod.pools.here().http1.take(key).await {
        return Ok(upstream);
    }
    // What is rare is not to make every request larger.
    Box::pin(Upstream::connect(pod, key, within, idle)).await
}

async fn send_http2(
    session: &Session,
    key: Key,
    request: Request<TryBody>,
    within: Duration,
    client: Option<&Waiting>,
    measuring: Measuring,
) -> Result<Response<AnswerBody>, TryError> {
    let pool = &session.pod.pools.here().http2;
    let connection = pool.connection(&session.pod, key, within).await?;
    match http2::send(connection, request, client, measuring).await {
        Ok(response) => Ok(response.map(AnswerBody::http2)),
        Err(http2::SendError::Refused) => Err(TryError::Refused),
        Err(http2::SendError::Reset(error)) => Err(TryError::Reset(error.into())),
    }
}
