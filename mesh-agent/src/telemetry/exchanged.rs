//! A request and its answer, as they are told of.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode, Version};

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// When its head had come.
    pub begun: SystemTime,
    /// Until the answer's last byte, or its end before that.
    pub took: Duration,
    /// The pod it comes from or goes to.
    pub pod: Arc<str>,
    /// Whether it goes to the pod.
    pub is_inbound: bool,
    /// The client's end.
    pub client: SocketAddr,
    /// What it is for.
    pub destination: Arc<str>,
    /// Whose answer the client got.
    pub endpoint: Option<SocketAddr>,
    /// How often it was sent to a server.
    pub tries: u32,
    /// What the client speaks.
    pub version: Version,
    /// What is to be done.
    pub method: Method,
    /// To what: without the query, which may hold secrets.
    pub path: Box<str>,
    /// Whom the client wants to ask.
    pub host: Option<String>,
    /// Of the answer.
    pub status: StatusCode,
    /// Of the answer to a call of gRPC, in headers or trailers.
    pub grpc_status: Option<u8>,
    /// Why the agent answered itself.
    pub reason: Option<&'static str>,
    /// Bytes of the answer's body that the client got.
    pub bytes: u64,
    /// Whether it got all of them.
    pub is_whole: bool,
    /// Its place in a trace.
    pub span: Option<Span>,
}

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: u128,
    /// This place.
    pub id: u64,
    /// The one it follows from.
    pub parent: Option<u64>,
    /// Whether it is kept.
    pub is_sampled: bool,
}
