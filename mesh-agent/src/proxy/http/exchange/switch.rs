//! Requests after which the client's connection, or its stream of HTTP/2, is no HTTP any more.

use http::{HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::Tunnel;
use crate::proxy::http::{
    body::{AnswerBody, BoxError},
    headers,
    reason::Reason,
    try_guard::TryGuard,
};

/// What the client wants its connection or stream to be after the answer.
pub(super) enum Switch {
    Nothing,
    /// Of this protocol (RFC 9110, 7.8).
    Upgrade(HeaderValue),
    /// A tunnel to where the request is for (RFC 9110, 9.3.6).
    Connect,
    /// The same, of this stream only (RFC 9113, 8.5).
    ConnectStream(OnUpgrade),
}

impl Switch {
    /// What a request asks for, which has `upgrade` for this hop.
    pub(super) fn of(head: &mut Parts, upgrade: Option<HeaderValue>) -> Self {
        // Of HTTP/1 it is not used: the connection itself is.
        let stream = head.extensions.remove::<OnUpgrade>();
        match (upgrade, stream) {
            (_, Some(stream)) if is_connect_of_http2(head) => Self::ConnectStream(stream),
            _ if head.method == Method::CONNECT => Self::Connect,
            (Some(protocol), _) => Self::Upgrade(protocol),
            (None, _) => Self::Nothing,
        }
    }

    pub(super) const fn is_wanted(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Whether the server says that from now on it is.
    pub(super) fn is_made(&self, status: StatusCode) -> bool {
        match self {
            Self::Nothing => false,
            Self::Upgrade(_) => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::Connect | Self::ConnectStream(_) => status.is_success(),
        }
    }
}

fn is_connect_of_http2(head: &Parts) -> bool {
    head.method == Method::CONNECT && head.version == Version::HTTP_2
}

/// The answer to the client, and the connection that is its own from now on.
pub(super) async fn switch_protocols(
    response: Response<AnswerBody>,
    protocol: Option<HeaderValue>,
    held: TryGuard,
) -> Result<(Response<AnswerBody>, Option<Tunnel>), Reason> {
    let (mut head, body) = response.into_parts();
    let tunnel = body.into_tunnel().await;
    let (server, said) = tunnel.ok_or(Reason::UpstreamReset)?;
    // That of the server's connection; the client's has its own.
    head.extensions.remove::<OnUpgrade>();
    head.headers.remove(header::CONTENT_LENGTH);
    if let Some(protocol) = protocol {
        headers::set_upgrade(&mut head.headers, protocol);
    }
    head.version = Version::HTTP_11;
    Ok((
        Response::from_parts(head, AnswerBody::empty()),
        Some(Tunnel { server, said, held }),
    ))
}

/// The answer to the client, whose stream is joined to the server's from now on, until both directions have
/// ended, or either connection.
pub(super) fn join_streams(
    response: Response<AnswerBody>,
    client: OnUpgrade,
    held: TryGuard,
) -> Result<(Response<AnswerBody>, Option<Tunnel>), Reason> {
    let (mut head, _none) = response.into_parts();
    // With another 2xx than 200 the HTTP library makes none.
    let server = head.extensions.remove::<OnUpgrade>();
    let server = server.ok_or(Reason::UpstreamReset)?;
    head.headers.remove(header::CONTENT_LENGTH);
    tokio::spawn(async move {
        let _held = held;
        if let Err(error) = join(client, server).await {
            tracing::debug!("a tunnel over HTTP/2 ended: {error}");
        }
    });
    Ok((Response::from_parts(head, AnswerBody::empty()), None))
}

async fn join(client: OnUpgrade, server: OnUpgrade) -> Result<(), BoxError> {
    // The client's is there once it has its answer.
    let (client, server): (Upgraded, Upgraded) = tokio::try_join!(client, server)?;
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await?;
    Ok(())
}
