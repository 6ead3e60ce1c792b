//! Accepts connections in a pod.

use std::{io, sync::Arc, time::Duration};

use tokio::net::TcpListener;

use super::{PodProxy, capacity, connection::forward, occasionally::Occasionally};

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
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                let open = pod.connections.begin();
                // Accepted first: to wait with room in hand would keep it from busier pods.
                let room = capacity::room().await;
                let pod = Arc::clone(&pod);
                tokio::spawn(async move {
                    forward(open, client, peer, &pod, direction).await;
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
