//! HTTP/1 and HTTP/2 between apps and the servers of their destinations.

mod batched_io;
mod body;
mod counted_io;
mod deadlines;
mod exchange;
mod fallback;
mod framing;
mod half_close;
mod headers;
mod hearing;
mod http2;
mod interim;
mod joined_frames;
mod measured;
mod observed;
mod pushback;
mod reason;
mod receipts;
mod refusal;
mod request_body;
mod retry_mark;
mod running;
mod server;
mod session;
mod strict_io;
mod tries;
mod try_guard;
mod upstream;

pub use fallback::Fallback;
pub use http2::{Received, serve_http2};
pub use reason::Reason;
pub use server::serve_http1;
pub use session::Session;
pub use upstream::{Key, Pools, http1::Upstream, http2::speak as speak_http2};
