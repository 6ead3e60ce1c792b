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
    task::JoinHandle,
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
/// How long the next one waits for that: a server may have room for few that it has not accepted.
const BETWEEN: Duration = Duration::from_millis(100);

/// Remembers with `endpoint` how long handshakes take, of those that take no longer than `within`: of one if that is what
/// was known, else of some more, one after the other, and of `most` at the most; of none if one of them fails. Nobody waits
/// for it.
pub fn measure(
    pod: &Arc<PodProxy>,
    key: Key,
    within: Duration,
    endpoint: Arc<Endpoint>,
    most: usize,
) {
    let pod = Arc::clone(pod);
    tokio::spawn(async move {
        let mut took = Vec::new();
        let mut ending = None;
        while took.len() < most && endpoint.round_trip.wants_another(&took) {
            if let Some(ending) = ending.take() {
                let _gone = timeout(BETWEEN, ending).await;
            }
            match handshake(&pod, key, within).await {
                Ok((Some(one), last)) => {
                    took.push(one);
                    ending = Some(last);
                }
                Ok((None, _)) => return,
                Err(error) => {
                    let server = key.server;
                    tracing::debug!(
                        "no connection to {server} to tell what the network takes: {error:?}"
                    );
                    return;
                }
            }
        }
        let now = pod.latency.age(Instant::now());
        endpoint.round_trip.handshakes_made(&took, now);
    });
}

/// How long one takes, as the kernel has it, which knows nothing if the first segment had to be sent again; and what
/// ends with the connection, which is being ended.
async fn handshake(
    pod: &Arc<PodProxy>,
    key: Key,
    within: Duration,
) -> Result<(Option<Duration>, JoinHandle<()>), ConnectError> {
    let begun = Instant::now();
    let stream = super::connect(pod, key, within).await?;
    let least = tcp_info(&stream).map_err(ConnectError::Failed)?.least_rtt;
    let is_known = !least.is_zero() && least <= begun.elapsed();
    let ending = tokio::spawn(async {
        // Whatever the server makes of it.
        let _gone = timeout(ENDING, end(stream)).await;
    });
    Ok((is_known.then_some(least), ending))
}

/// Ends a connection so that a server that speaks first gets no reset.
async fn end(mut stream: TcpStream) -> io::Result<()> {
    close_in_order(&stream)?;
    stream.shutdown().await?;
    let mut discarded = [0; 256];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}
