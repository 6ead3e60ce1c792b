//! A connection from outside to a server in the pod: which server, and whom it is for.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::{
    PodProxy,
    connection::{Accepted, Moved, join, log_failure},
    given_up::given_up,
    proxy_protocol, upstream,
};

/// How long a server in the pod may take to accept. It is on the same machine: only one whose queue is
/// full takes longer than a moment.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a connection goes that came to the agent's inbound listener; `None` if no server listens there
/// any more, or it was not steered there.
pub(super) fn accepted(client: &TcpStream, peer: SocketAddr, pod: &PodProxy) -> Option<Accepted> {
    let local = client.local_addr().ok()?;
    let target = pod.maps.inbound_target(pod.netns.cookie(), local)?;
    Some(Accepted {
        client: peer,
        destination: local,
        proxy: target,
    })
}

/// Carries a connection to its end.
pub(super) async fn carry(
    client: TcpStream,
    accepted: &Accepted,
    pod: &Arc<PodProxy>,
    moved: &Moved,
) -> io::Result<()> {
    let connected = connect(&client, accepted, pod, &moved.sent).await;
    let connected = connected.inspect_err(|error| {
        pod.connections.count_failed();
        log_failure(&pod.netns, accepted.destination, error);
    });
    match connected? {
        Some(server) => join(&client, &server, moved).await,
        None => Ok(()),
    }
}

/// Connects to the server; `None` when the client has given up.
async fn connect(
    client: &TcpStream,
    accepted: &Accepted,
    pod: &PodProxy,
    sent: &AtomicU64,
) -> io::Result<Option<TcpStream>> {
    let connecting = upstream::connect_to_server(
        &pod.netns,
        &pod.maps,
        accepted.proxy,
        accepted.client,
        accepted.destination,
    );
    let mut server = tokio::select! {
        connected = timeout(CONNECT_TIMEOUT, connecting) => connected??,
        () = given_up(client) => return Ok(None),
    };
    if pod.speaks_proxy_protocol(accepted.destination.port()) {
        let header = proxy_protocol::header(accepted.client, accepted.destination);
        server.write_all(&header).await?;
        sent.fetch_add(header.len() as u64, Ordering::Relaxed);
    }
    Ok(Some(server))
}
