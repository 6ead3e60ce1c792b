//! Requests after which the client's connection is no HTTP any more.

use http::{HeaderValue, Response, StatusCode, Version, header};

use super::Tunnel;
use crate::proxy::http::{body::AnswerBody, headers, reason::Reason};

/// What the client wants its connection to be after the answer.
pub(super) enum Switch {
    Nothing,
    /// Of this protocol (RFC 9110, 7.8).
    Upgrade(HeaderValue),
    /// A tunnel to where the request is for (RFC 9110, 9.3.6).
    Connect,
}

impl Switch {
    pub(super) const fn is_wanted(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Whether the server says that from now on it is.
    pub(super) fn is_made(&self, status: StatusCode) -> bool {
        match self {
            Self::Nothing => false,
            Self::Upgrade(_) => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::Connect => status.is_success(),
        }
    }
}

/// The answer to the client, and the connection that is its own from now on.
pub(super) async fn switch_protocols(
    response: Response<AnswerBody>,
    protocol: Option<HeaderValue>,
) -> Result<(Response<AnswerBody>, Option<Tunnel>), Reason> {
    let (mut head, body) = response.into_parts();
    let tunnel = body.into_tunnel().await.ok_or(Reason::UpstreamReset)?;
    // That of the server's connection; the client's has its own.
    head.extensions.remove::<hyper::upgrade::OnUpgrade>();
    head.headers.remove(header::CONTENT_LENGTH);
    if let Some(protocol) = protocol {
        headers::set_upgrade(&mut head.headers, protocol);
    }
    head.version = Version::HTTP_11;
    Ok((
        Response::from_parts(head, AnswerBody::empty()),
        Some(tunnel),
    ))
}
