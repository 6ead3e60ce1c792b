//! Accepts connections in a pod.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use tokio::{io::Interest, net::TcpStream};

use super::{
    PodProxy, capacity,
    connection::{Open, forward},
    occasionally::Occasionally,
    workers,
};
use crate::pods;

/// How long to leave new connections waiting when there is no descriptor left for them at all.
const NO_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(20);

/// Which way connections go, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// From the pod's apps to servers.
    Outbound,
    /// From clients to the pod's servers.
    Inbound,
}

/// Accepts and forwards connections in one pod, until dropped. Returns when the listener is dead.
pub async fn serve(listener: TcpListener, pod: Arc<PodProxy>, direction: Direction) {
    static SAID: Occasionally = Occasionally::new();
    let listener = match pods::watched(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot wait for connections: {error}"),
    };
    loop {
        // Not tokio's own accept, which would tie the connection to this thread.
        let accepted = listener.async_io(Interest::READABLE, TcpListener::accept);
        match accepted.await {
            Ok((client, peer)) => {
                let open = pod.connections.begin();
                // Accepted first: to wait with room in hand would keep it from busier pods.
                let room = capacity::room().await;
                let pod = Arc::clone(&pod);
                workers::carry(async move {
                    carry(open, client, peer, &pod, direction).await;
                    drop(room);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if is_out_of_memory_or_descriptors(&error) => {
                if SAID.now() {
                    tracing::error!(
                        "pod at {}: {error}; new connections wait; raise the agent's open-files \
                         limit (2 descriptors per connection)",
                        pod.netns.path().display()
                    );
                }
                tokio::time::sleep(NO_DESCRIPTORS_PAUSE).await;
            }
            Err(error) => {
                tracing::error!(
                    "pod at {}: the agent's listener is dead: {error}; was it killed from inside \
                     the pod?",
                    pod.netns.path().display()
                );
                return;
            }
        }
    }
}

async fn carry(
    open: Open,
    client: std::net::TcpStream,
    peer: SocketAddr,
    pod: &Arc<PodProxy>,
    direction: Direction,
) {
    let client = client.set_nonblocking(true).map(|()| client);
    match client.and_then(TcpStream::from_std) {
        Ok(client) => forward(open, client, peer, pod, direction).await,
        Err(error) => tracing::error!("cannot carry a connection: {error}"),
    }
}

/// The connection died before it was accepted, by accept(2).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ETIMEDOUT
        )
    )
}

fn is_out_of_memory_or_descriptors(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
