//! Answers that the agent makes itself, each with the reason.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::AnswerBody;

/// The header that has the reason for every answer the agent made itself.
pub const REASON: HeaderName = HeaderName::from_static("x-mesh-reason");

/// Why the agent answered itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No server could be connected to.
    ConnectFailure,
    /// No connection came about in time.
    ConnectTimeout,
    /// The server ended the connection or stream before it answered.
    UpstreamReset,
    /// The server refused the stream.
    RefusedStream,
    /// No try was answered in its time.
    PerTryTimeout,
    /// The request with all its tries took too long.
    RequestTimeout,
    /// The destination has no servers.
    NoEndpoint,
    /// CONNECT is not forwarded.
    ConnectMethod,
    /// The client took too long for the head of its request.
    HeadTimeout,
    /// The client's connection ended in the middle of the request.
    IncompleteBody,
    /// There were more requests than a rate of its policy allows.
    RateLimited,
    /// The breaker of its destination is open.
    BreakerOpen,
    /// Too large a share of the requests to its destination failed lately.
    Throttled,
    /// As many requests to its destination are under way as its policy allows.
    RequestLimit,
    /// As many connections to its destination are in use as its policy allows, and as many requests wait
    /// for one.
    ConnectionLimit,
    /// It waited too long for its turn at the pod's server.
    QueueTimeout,
    /// As many requests wait for the pod's server as may.
    QueueFull,
    /// The pod's server has more to do than it can, and the request is not important enough.
    LowPriority,
    /// The same, as the agent of the server told: it was not sent.
    ServerOverloaded,
    /// The request is not one that can be understood in one way only.
    Malformed(Malformed),
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndChunked,
    /// `Content-Length` more than once, or no plain number.
    ContentLength,
    /// A `Transfer-Encoding` other than `chunked`.
    TransferEncoding,
    /// A line that does not end in CR LF, or a CR alone.
    LineEnd,
    /// A header that goes on in the next line.
    FoldedHeader,
    /// Something in a header that may not be there.
    Header,
    /// The first line.
    RequestLine,
    /// The size or the end of a chunk.
    ChunkSize,
    /// More or larger headers than are read.
    HeadersTooLarge,
    /// No `Host`, or more than one.
    Host,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::ConnectFailure,
        Self::ConnectTimeout,
        Self::UpstreamReset,
        Self::RefusedStream,
        Self::PerTryTimeout,
        Self::RequestTimeout,
        Self::NoEndpoint,
        Self::ConnectMethod,
        Self::HeadTimeout,
        Self::IncompleteBody,
        Self::RateLimited,
        Self::BreakerOpen,
        Self::Throttled,
        Self::RequestLimit,
        Self::ConnectionLimit,
        Self::QueueTimeout,
        Self::QueueFull,
        Self::LowPriority,
        Self::ServerOverloaded,
        Self::Malformed(Malformed::LengthAndChunked),
        Self::Malformed(Malformed::ContentLength),
        Self::Malformed(Malformed::TransferEncoding),
        Self::Malformed(Malformed::LineEnd),
        Self::Malformed(Malformed::FoldedHeader),
        Self::Malformed(Malformed::Header),
        Self::Malformed(Malformed::RequestLine),
        Self::Malformed(Malformed::ChunkSize),
        Self::Malformed(Malformed::HeadersTooLarge),
        Self::Malformed(Malformed::Host),
    ];

    /// Its place among all of them.
    pub fn number(self) -> usize {
        let place = Self::ALL.iter().position(|reason| *reason == self);
        place.unwrap_or_default()
    }

    /// The code in header, log and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect_failure",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::RefusedStream => "refused_stream",
            Self::PerTryTimeout => "per_try_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::NoEndpoint => "no_endpoint",
            Self::ConnectMethod => "connect_method",
            Self::HeadTimeout => "head_timeout",
            Self::IncompleteBody => "incomplete_body",
            Self::RateLimited => "rate_limited",
            Self::BreakerOpen => "breaker_open",
            Self::Throttled => "throttled",
            Self::RequestLimit => "request_limit",
            Self::ConnectionLimit => "connection_limit",
            Self::QueueTimeout => "queue_timeout",
            Self::QueueFull => "queue_full",
            Self::LowPriority => "low_priority",
            Self::ServerOverloaded => "server_overloaded",
            Self::Malformed(malformed) => malformed.code(),
        }
    }

    /// The status of the answer, but for calls of gRPC.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::ConnectFailure
            | Self::NoEndpoint
            | Self::RefusedStream
            | Self::BreakerOpen
            | Self::Throttled
            | Self::RequestLimit
            | Self::ConnectionLimit
            | Self::QueueTimeout
            | Self::QueueFull
            | Self::LowPriority
            | Self::ServerOverloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::UpstreamReset => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::PerTryTimeout | Self::RequestTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::ConnectMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Malformed(Malformed::HeadersTooLarge) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::IncompleteBody | Self::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether it was refused to keep something from being asked too much, so that another try would make
    /// it worse.
    pub const fn is_protection(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::BreakerOpen
                | Self::Throttled
                | Self::RequestLimit
                | Self::ConnectionLimit
                | Self::QueueTimeout
                | Self::QueueFull
                | Self::LowPriority
                | Self::ServerOverloaded
        )
    }

    /// Whether there is something wrong with the request itself, so that nothing else could answer it.
    pub const fn is_clients_fault(self) -> bool {
        matches!(
            self,
            Self::ConnectMethod | Self::HeadTimeout | Self::IncompleteBody | Self::Malformed(_)
        )
    }

    /// `status.proto` of gRPC.
    pub(super) const fn grpc_status(self) -> &'static str {
        match self {
            Self::RequestTimeout | Self::PerTryTimeout => "4",
            Self::RateLimited => "8",
            Self::ConnectMethod | Self::IncompleteBody | Self::Malformed(_) => "13",
            _ => "14",
        }
    }

    /// The answer to a request, which may be a call of gRPC.
    pub(super) fn answer(self, is_grpc: bool) -> Response<AnswerBody> {
        let text = format!("{self}\n");
        let mut response = Response::new(if is_grpc {
            AnswerBody::empty()
        } else {
            AnswerBody::of(Bytes::from(text))
        });
        let headers = response.headers_mut();
        headers.insert(REASON, HeaderValue::from_static(self.code()));
        if is_grpc {
            // Trailers only: the status is in the headers, and the stream ends with them.
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            headers.insert("grpc-status", HeaderValue::from_static(self.grpc_status()));
            headers.insert("grpc-message", HeaderValue::from_static(self.code()));
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            *response.status_mut() = self.status();
        }
        response
    }
}

impl Malformed {
    const fn code(self) -> &'static str {
        match self {
            Self::LengthAndChunked => "malformed_length_and_chunked",
            Self::ContentLength => "malformed_content_length",
            Self::TransferEncoding => "malformed_transfer_encoding",
            Self::LineEnd => "malformed_line_end",
            Self::FoldedHeader => "malformed_folded_header",
            Self::Header => "malformed_header",
            Self::RequestLine => "malformed_request_line",
            Self::ChunkSize => "malformed_chunk_size",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Host => "malformed_host",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mesh-agent: {}", self.code())
    }
}

/// Whether these are the headers of a gRPC call or answer.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
