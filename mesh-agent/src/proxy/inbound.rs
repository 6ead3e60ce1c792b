//! A connection from outside to a server in the pod: which server, and whom it is for.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::{
    PodProxy,
    captured::Captured,
    connection::{Accepted, Moved, join, log_failure},
    destinations::Target,
    given_up::given_up,
    proxy_protocol,
    upstream::{self, SeenAs},
};
use crate::config::Protocol;

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
    moved: &Arc<Moved>,
) -> io::Result<()> {
    let seen_as = SeenAs::Client {
        client: accepted.client,
        local: accepted.destination,
    };
    let port = accepted.destination.port();
    let protocol = pod.servers.protocol(port);
    if protocol != Protocol::Tcp {
        let captured = Captured {
            client,
            address: accepted.client,
            seen_as,
            pod,
            moved,
        };
        let server = pod.servers.server(accepted.proxy, protocol);
        let (original, target) = (accepted.destination, Target::Server(server));
        return captured.carry(protocol, original, target).await;
    }
    let connecting = upstream::connect(&pod.netns, &pod.maps, accepted.proxy, seen_as);
    let connected = tokio::select! {
        connected = timeout(CONNECT_TIMEOUT, connecting) => connected.map_err(Into::into).flatten(),
        () = given_up(&client) => return Ok(()),
    };
    let mut server = connected.inspect_err(|error| {
        pod.connections.count_failed();
        log_failure(&pod.netns, accepted.destination, error);
    })?;
    if pod.servers.speaks_proxy_protocol(port) {
        let header = proxy_protocol::header(accepted.client, accepted.destination);
        server.write_all(&header).await?;
        moved.sent.fetch_add(header.len() as u64, Ordering::Relaxed);
    }
    join(&client, &server, moved).await
}
