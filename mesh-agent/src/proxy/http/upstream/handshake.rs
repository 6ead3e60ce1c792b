//! Connections to servers that are made for their handshakes only: what the network takes, and nothing else.
//!
//! No request waits for one or goes over it, so none can fail by it, and connections that carry requests stay as they
//! are. Servers see what they see of a TCP health check, or of a browser that connects ahead: a connection that
//! ends in order, without a request. It counts in no limit, and that it fails says nothing of the server.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{ConnectError, Key};
use crate::{
    latency::tcp_info,
    pods::close_in_order,
    proxy::{PodProxy, destinations::Endpoint},
};

/// How long a server may take to end such a connection.
const ENDING: Duration = Duration::from_secs(1);

/// Remembers with `endpoint` how long a handshake takes, if it takes no longer than `within`. Nobody waits for it.
pub fn measure(pod: &Arc<PodProxy>, key: Key, within: Duration, endpoint: Arc<Endpoint>) {
    let pod = Arc::clone(pod);
    tokio::spawn(async move {
        let begun = Instant::now();
        let stream = match super::connect(&pod, key, within).await {
            Ok(stream) => stream,
            Err(error) => return not_known(key, &error),
        };
        match tcp_info(&stream) {
            // The kernel knows none if the first segment had to be sent again.
            Ok(info) if !info.least_rtt.is_zero() && info.least_rtt <= begun.elapsed() => {
                let now = pod.latency.age(Instant::now());
                endpoint.round_trip.handshake(info.least_rtt, now);
            }
            Ok(_) => {}
            Err(error) => not_known(key, &ConnectError::Failed(error)),
        }
        // Whatever the server makes of it.
        let _gone = timeout(ENDING, end(stream)).await;
    });
}

/// Ends a connection so that a server that speaks first gets no reset.
async fn end(mut stream: TcpStream) -> io::Result<()> {
    close_in_order(&stream)?;
    stream.shutdown().await?;
    let mut discarded = [0; 256];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

fn not_known(key: Key, error: &ConnectError) {
    let server = key.server;
    tracing::debug!("no connection to {server} to tell what the network takes: {error:?}");
}
