//! Requests after which the client's connection, or its stream of HTTP/2, is no HTTP any more.

use http::{HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};

use super::Tunnel;
use crate::proxy::http::{
    body::AnswerBody, headers, http2, reason::Reason, request_body::RequestBody,
    try_guard::TryGuard,
};

/// What the client wants its connection or stream to be after the answer.
pub(super) enum Switch {
    Nothing,
    /// Of this protocol (RFC 9110, 7.8).
    Upgrade(HeaderValue),
    /// A tunnel to where the request is for (RFC 9110, 9.3.6).
    Connect,
    /// The same, of this stream only (RFC 9113, 8.5). What comes over it, until it is joined.
    ConnectStream(Option<http2::Received>),
}

impl Switch {
    /// What a request asks for, which has `upgrade` for this hop; and its body, if it has one.
    pub(super) fn of(
        head: &Parts,
        upgrade: Option<HeaderValue>,
        body: RequestBody,
    ) -> (Self, Option<RequestBody>) {
        match (upgrade, body) {
            (_, RequestBody::Http2(stream)) if head.method == Method::CONNECT => {
                (Self::ConnectStream(Some(stream)), None)
            }
            (_, body) if head.method == Method::CONNECT => (Self::Connect, Some(body)),
            (Some(protocol), body) => (Self::Upgrade(protocol), Some(body)),
            (None, body) => (Self::Nothing, Some(body)),
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

/// The answer to the client, and the connection that is its own from now on.
pub(super) async fn switch_protocols(
    response: Response<AnswerBody>,
    protocol: Option<HeaderValue>,
    held: TryGuard,
) -> Result<(Response<AnswerBody>, Option<Tunnel>), Reason> {
    let (mut head, body) = response.into_parts();
    let tunnel = body.into_tunnel().await;
    let (server, said) = tunnel.ok_or(Reason::UpstreamReset)?;
    head.headers.remove(header::CONTENT_LENGTH);
    if let Some(protocol) = protocol {
        headers::set_upgrade(&mut head.headers, protocol);
    }
    head.version = Version::HTTP_11;
    Ok((
        Response::from_parts(head, AnswerBody::empty()),
        Some(Tunnel::Connection { server, said, held }),
    ))
}

/// The answer to the client, whose stream is joined to the server's from now on.
pub(super) fn join_streams(
    response: Response<AnswerBody>,
    client: Option<http2::Received>,
    held: TryGuard,
) -> Result<(Response<AnswerBody>, Option<Tunnel>), Reason> {
    let (mut head, body) = response.into_parts();
    let joined = client.zip(body.into_stream());
    let (client, (server, said)) = joined.ok_or(Reason::UpstreamReset)?;
    head.headers.remove(header::CONTENT_LENGTH);
    let tunnel = http2::Tunnel {
        client,
        server,
        said,
        held,
    };
    let response = Response::from_parts(head, AnswerBody::empty());
    Ok((response, Some(Tunnel::Stream(tunnel))))
}
