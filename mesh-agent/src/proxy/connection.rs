//! One redirected connection, from accept to its end, and the list of those that are open.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};

use super::{copy::copy_both_ways, given_up::given_up, upstream};
use crate::{
    kernel::Maps,
    pods::{self, Netns},
};

/// How long to leave new connections waiting when the process has no descriptor left for them.
const NO_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(20);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    /// The app's end.
    pub client: SocketAddr,
    /// The agent's end.
    pub proxy: SocketAddr,
    /// Where the app wanted to go.
    pub destination: SocketAddr,
    /// When it was accepted.
    pub accepted_at: Instant,
    sent: AtomicU64,
    received: AtomicU64,
}

/// What can be told of an open connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionStatus {
    /// The app's end.
    pub client: SocketAddr,
    /// The agent's end.
    pub proxy: SocketAddr,
    /// Where the app wanted to go.
    pub destination: SocketAddr,
    /// Time since it was accepted.
    pub age: Duration,
    /// Bytes from the app to the server.
    pub bytes_sent: u64,
    /// Bytes from the server to the app.
    pub bytes_received: u64,
}

/// The open connections of a pod.
#[derive(Debug)]
pub struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    total: AtomicU64,
    failed: AtomicU64,
    idle: Notify,
    abort: watch::Sender<bool>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            total: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            idle: Notify::new(),
            abort: watch::Sender::new(false),
        }
    }
}

impl Connections {
    /// Connections accepted since the pod was enrolled.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Connections of those whose server could not be reached.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.lock().len()
    }

    /// Every open connection.
    pub fn list(&self) -> Vec<ConnectionStatus> {
        self.lock()
            .values()
            .map(|connection| ConnectionStatus {
                client: connection.client,
                proxy: connection.proxy,
                destination: connection.destination,
                age: connection.accepted_at.elapsed(),
                bytes_sent: connection.sent.load(Ordering::Relaxed),
                bytes_received: connection.received.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// Waits until no connection is open.
    pub async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.open() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Resets every open connection.
    pub fn abort(&self) {
        self.abort.send_replace(true);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, connection: Connection) -> Entry {
        let id = self.total.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(connection);
        self.lock().insert(id, Arc::clone(&connection));
        Entry {
            connections: Arc::clone(self),
            connection,
            id,
        }
    }
}

/// Membership in the list; ends when the connection does, however it does.
struct Entry {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.remove(&self.id);
        if open.is_empty() {
            // A burst of connections must not leave its table behind.
            open.shrink_to(64);
            self.connections.idle.notify_waiters();
        }
    }
}

/// Accepts and forwards connections in one pod, until dropped.
pub async fn serve(
    listener: TcpListener,
    netns: Arc<Netns>,
    maps: Arc<Maps>,
    connections: Arc<Connections>,
) {
    let mut out_of_descriptors = false;
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                out_of_descriptors = false;
                let (netns, maps, connections) = (
                    Arc::clone(&netns),
                    Arc::clone(&maps),
                    Arc::clone(&connections),
                );
                tokio::spawn(
                    async move { forward(client, peer, &netns, &maps, &connections).await },
                );
            }
            Err(error) if is_out_of_descriptors(&error) => {
                if !out_of_descriptors {
                    tracing::error!(
                        "pod at {}: {error}; new connections wait; raise the agent's open-files \
                         limit (2 descriptors per connection)",
                        netns.path().display()
                    );
                }
                out_of_descriptors = true;
                tokio::time::sleep(NO_DESCRIPTORS_PAUSE).await;
            }
            // The connection died before it was accepted.
            Err(_) => {}
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

async fn forward(
    mut client: TcpStream,
    peer: SocketAddr,
    netns: &Netns,
    maps: &Maps,
    connections: &Arc<Connections>,
) {
    let Some((proxy, destination)) = original_destination(&client) else {
        tracing::debug!(
            "pod at {}: {peer} connected to the agent itself; reset",
            netns.path().display()
        );
        return;
    };
    let entry = connections.add(Connection {
        client: peer,
        proxy,
        destination,
        accepted_at: Instant::now(),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
    });
    let carry = async {
        let connecting = upstream::connect(netns, maps, destination, bound_source(peer.ip()));
        let connected = tokio::select! {
            connected = connecting => connected,
            () = given_up(&client) => Err(io::Error::other("the app gave up")),
        };
        let mut server = connected.inspect_err(|error| {
            connections.failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("pod at {}: {destination}: {error}", netns.path().display());
        })?;
        let Connection { sent, received, .. } = &*entry.connection;
        copy_both_ways(&mut client, &mut server, sent, received).await?;
        pods::close_in_order(&client)?;
        pods::close_in_order(&server)
    };
    let mut abort = connections.abort.subscribe();
    // Whatever ends this but the end of both directions closes both sockets with a reset, because
    // that is how they were made.
    tokio::select! {
        _ended = carry => {}
        _aborted = abort.wait_for(|abort| *abort) => {}
    }
}

/// The agent's end and the original destination, or `None` when the connection was not redirected
/// (then its "original destination" is the agent itself, and following it would never end).
fn original_destination(client: &TcpStream) -> Option<(SocketAddr, SocketAddr)> {
    let proxy = client.local_addr().ok()?;
    let socket = SockRef::from(client);
    let destination = if proxy.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let destination = destination.ok()?.as_socket()?;
    (destination != proxy).then_some((proxy, destination))
}

/// The address that the app had bound its socket to. Without one it has the loopback address that
/// the redirection led to.
fn bound_source(client: IpAddr) -> Option<IpAddr> {
    (!client.is_loopback()).then_some(client)
}
