//! What the running agent tells: over its Unix socket for the reading verbs, and as metrics and
//! health over HTTP.

pub mod client;
pub mod latency;
mod metrics;
pub mod model;
mod page;
mod pod_socket_metrics;
pub mod pod_sockets;
mod report;
mod server;
mod socket;

pub use report::Report;
pub use server::{AdminError, serve_admin, serve_metrics};
pub use socket::AdminSocket;
