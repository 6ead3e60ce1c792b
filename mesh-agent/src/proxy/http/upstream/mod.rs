//! Connections to servers, kept for the requests to come. Each pod has its own: they are made in its
//! network namespace.

pub mod handshake;
mod heard_out;
pub mod http1;
pub mod http2;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpStream;

use crate::proxy::{
    PodProxy,
    upstream::{self, SeenAs},
    workers,
};

/// What distinguishes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The server.
    pub server: SocketAddr,
    /// Whom it takes for its client.
    pub seen_as: SeenAs,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// It was refused, or cannot be made here.
    Failed(io::Error),
    /// It took too long.
    Timeout,
}

/// The kept connections of one pod. Each worker has its own: see [`workers`].
#[derive(Debug)]
pub struct Pools(Box<[WorkerPools]>);

/// The kept connections of one pod on one worker.
#[derive(Debug, Default)]
pub struct WorkerPools {
    /// HTTP/1 connections that carry no request.
    pub http1: http1::Pool,
    /// HTTP/2 connections.
    pub http2: http2::Pool,
}

impl Default for Pools {
    fn default() -> Self {
        let pools = (0..workers::count()).map(|_| WorkerPools::default());
        Self(pools.collect())
    }
}

impl Pools {
    /// Those of this worker.
    pub fn here(&self) -> &WorkerPools {
        &self.0[workers::here()]
    }

    /// Forgets connections that are of no use any more.
    pub fn sweep(&self) {
        for pools in &self.0 {
            pools.http1.sweep();
            pools.http2.sweep();
        }
    }

    /// Closes a connection that nobody will use any more, unless a request is under way on it.
    pub fn forget(&self, key: Key) {
        for pools in &self.0 {
            pools.http1.forget(key);
            pools.http2.forget(key);
        }
    }
}

/// Connects from inside the pod.
async fn connect(
    pod: &Arc<PodProxy>,
    key: Key,
    within: Duration,
) -> Result<TcpStream, ConnectError> {
    let connecting = upstream::connect(&pod.netns, &pod.maps, key.server, key.seen_as);
    match tokio::time::timeout(within, connecting).await {
        Ok(connected) => connected.map_err(ConnectError::Failed),
        Err(_elapsed) => Err(ConnectError::Timeout),
    }
}
