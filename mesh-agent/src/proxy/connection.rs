//! One captured connection, from accept to its end, and the list of those that are open.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
};

use super::{
    Direction, PodProxy, copy::copy_both_ways, detect::Detected, duplex::Duplex, inbound,
    occasionally::Occasionally, outbound, upstream,
};
use crate::{
    pods::{self, Netns},
    policy::detection::Spoken,
};

/// The ends of an accepted connection.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// The client's end.
    pub client: SocketAddr,
    /// Outbound: the agent's end. Inbound: where the server really listens.
    pub proxy: SocketAddr,
    /// Where the client wanted to go.
    pub destination: SocketAddr,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    accepted: Accepted,
    direction: Direction,
    accepted_at: Instant,
    moved: Arc<Moved>,
}

/// What a connection has carried so far.
#[derive(Debug, Default)]
pub struct Moved {
    /// What was found out about it.
    pub(super) detected: OnceLock<Detected>,
    /// From the client.
    pub sent: AtomicU64,
    /// To the client.
    pub received: AtomicU64,
}

/// What can be told of an open connection.
#[derive(Clone, Debug)]
pub struct ConnectionStatus {
    /// Its ends.
    pub accepted: Accepted,
    /// Which way it goes, seen from the pod.
    pub direction: Direction,
    /// What the client speaks, where that was detected.
    pub spoken: Option<Spoken>,
    /// With TLS: the server that the client names.
    pub server_name: Option<String>,
    /// Time since it was accepted.
    pub age: Duration,
    /// Bytes from the client to the server.
    pub bytes_sent: u64,
    /// Bytes from the server to the client.
    pub bytes_received: u64,
}

/// The open connections of a pod.
#[derive(Debug)]
pub struct Connections {
    open: AtomicUsize,
    list: Mutex<HashMap<u64, Connection>>,
    total: AtomicU64,
    failed: AtomicU64,
    idle: Notify,
    abort: watch::Sender<bool>,
    finish: watch::Sender<bool>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            list: Mutex::default(),
            total: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            idle: Notify::new(),
            abort: watch::Sender::new(false),
            finish: watch::Sender::new(false),
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

    /// Connections that are open now, those included that were accepted just now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Every open connection whose destination is known.
    pub fn list(&self) -> Vec<ConnectionStatus> {
        self.lock()
            .values()
            .map(|connection| {
                let moved = &connection.moved;
                let detected = moved.detected.get();
                ConnectionStatus {
                    accepted: connection.accepted,
                    direction: connection.direction,
                    spoken: detected.map(|it| it.spoken),
                    server_name: detected.and_then(|it| it.server_name.clone()),
                    age: connection.accepted_at.elapsed(),
                    bytes_sent: moved.sent.load(Ordering::Relaxed),
                    bytes_received: moved.received.load(Ordering::Relaxed),
                }
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

    /// Ends every connection that can be ended between two requests, as soon as it can.
    pub fn finish(&self) {
        self.finish.send_replace(true);
    }

    /// Completes when connections are to end between two requests.
    pub(super) fn finishing(&self) -> impl Future<Output = ()> + use<> {
        let mut finish = self.finish.subscribe();
        async move {
            let _no_more = finish.wait_for(|finish| *finish).await;
        }
    }

    /// One whose server could not be reached.
    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Resets every open connection.
    pub fn abort(&self) {
        self.abort.send_replace(true);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Connection>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection. To be called with nothing awaited since it was accepted: between
    /// accept and its task's first turn it must not be overlooked by [`Connections::drained`].
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::AcqRel);
        Open(Arc::clone(self))
    }

    fn add(&self, connection: Connection) -> Entry<'_> {
        let id = self.total.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, connection);
        Entry {
            connections: self,
            id,
        }
    }
}

/// A connection that counts as open, until dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<Connections>);

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Membership in the list; ends when the connection does, however it does.
struct Entry<'a> {
    connections: &'a Connections,
    id: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut list = self.connections.lock();
        list.remove(&self.id);
        if list.is_empty() {
            // A burst of connections must not leave its table behind.
            list.shrink_to(64);
        }
    }
}

/// Carries one connection to its end.
pub(super) async fn forward(
    open: Open,
    client: TcpStream,
    peer: SocketAddr,
    pod: &Arc<PodProxy>,
    direction: Direction,
) {
    let connections = &*open.0;
    let accepted = match direction {
        Direction::Outbound => original_destination(&client, peer),
        Direction::Inbound => inbound::accepted(&client, peer, pod),
    };
    let Some(accepted) = accepted else {
        tracing::debug!(
            "pod at {}: {peer} connected to the agent itself; reset",
            pod.netns.path().display()
        );
        return;
    };
    let moved = Arc::new(Moved::default());
    let _entry = connections.add(Connection {
        accepted,
        direction,
        accepted_at: Instant::now(),
        moved: Arc::clone(&moved),
    });
    let carry = async {
        match direction {
            Direction::Outbound => outbound::carry(client, &accepted, pod, &moved).await,
            Direction::Inbound => inbound::carry(client, &accepted, pod, &moved).await,
        }
    };
    let mut abort = connections.abort.subscribe();
    // Whatever ends this but the end of both directions closes both sockets with a reset, because
    // that is how they were made.
    tokio::select! {
        _ended = carry => {}
        _aborted = abort.wait_for(|abort| *abort) => {}
    }
}

/// A server that cannot be reached is the app's affair; a cause in this machine is the operator's.
pub(super) fn log_failure(netns: &Netns, destination: SocketAddr, error: &io::Error) {
    static SAID: Occasionally = Occasionally::new();
    let pod = netns.path().display();
    if !upstream::is_local_cause(error) {
        tracing::debug!("pod at {pod}: {destination}: {error}");
    } else if SAID.now() {
        tracing::warn!(
            "pod at {pod}: cannot connect to {destination} because of this machine, and reset the \
             app's connection: {error}; look at its limits (descriptors, memory, ports) and \
             firewall rules"
        );
    }
}

/// Joins a client and its server until both directions have ended.
pub(super) async fn join<D: Duplex>(client: &D, server: &D, moved: &Moved) -> io::Result<()> {
    copy_both_ways(client, server, &moved.sent, &moved.received).await?;
    pods::close_in_order(client.stream())?;
    pods::close_in_order(server.stream())
}

/// Where an app wanted to go, or `None` when the connection was not redirected (then its "original
/// destination" is the agent itself, and following it would never end).
fn original_destination(client: &TcpStream, peer: SocketAddr) -> Option<Accepted> {
    let proxy = client.local_addr().ok()?;
    let socket = SockRef::from(client);
    // A socket bound to an IPv4 address comes over IPv4 wherever it wanted to go.
    let destination = if proxy.is_ipv4() {
        socket
            .original_dst_v4()
            .or_else(|_| socket.original_dst_v6())
    } else {
        socket.original_dst_v6()
    };
    let destination = destination.ok()?.as_socket()?;
    (destination != proxy).then_some(Accepted {
        client: peer,
        proxy,
        destination,
    })
}
