//! HTTP/2 on one connection, towards clients and servers: what both have in common, and the clients' side.
//! The servers' side is in [`upstream`](super::upstream).

mod frames;
mod io;
mod keepalive;
mod received;
mod sending;
mod server;
mod stamps;
mod stream;
mod tunnel;
mod waiting;
mod watching;

pub use frames::Frames;
pub use io::{Heard, listened_to};
pub use keepalive::Keepalive;
pub use received::Received;
pub use sending::Sending;
pub use server::serve_http2;
pub use stamps::StreamStamps;
pub use tunnel::Tunnel;
pub use waiting::Waiting;
pub use watching::Watching;

/// How much a peer may send on a stream before it is passed on, in bytes. As large as browsers': one slow stream
/// does not hold up the others.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// The same on all streams of a connection together.
pub const CONNECTION_WINDOW: u32 = 4 << 20;
