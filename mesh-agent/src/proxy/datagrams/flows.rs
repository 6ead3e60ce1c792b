//! Forwards datagrams. A flow is what one socket of an app sends to one server; it has a socket of the
//! agent's own, until nothing came either way for a while.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::UdpSocket,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{Asked, DatagramCounters, counters::add};
use crate::proxy::{PodProxy, capacity, scratch::with_scratch, upstream};

/// Flows of a pod and an address family. More are dropped: a pod that sends to ever new servers must
/// not take the descriptors of the others.
const MOST: usize = 4096;

/// The flows that come to one socket.
#[derive(Debug)]
pub(super) struct Flows {
    pod: Arc<PodProxy>,
    open: HashMap<(SocketAddr, IpAddr), Flow>,
    /// How many there may be before those that have ended are looked for.
    look_at: usize,
}

/// The task owns the socket, so that it is closed when the flow ends and not when that is looked for.
#[derive(Debug)]
struct Flow {
    upstream: Weak<Upstream>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Upstream {
    socket: UdpSocket,
    used: LastUse,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// When a flow carried something last.
#[derive(Debug)]
struct LastUse {
    start: Instant,
    milliseconds: AtomicU64,
}

impl LastUse {
    fn now() -> Self {
        Self {
            start: Instant::now(),
            milliseconds: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.milliseconds.store(passed, Ordering::Relaxed);
    }

    fn get(&self) -> Instant {
        self.start + Duration::from_millis(self.milliseconds.load(Ordering::Relaxed))
    }
}

impl Flows {
    pub fn new(pod: Arc<PodProxy>) -> Self {
        Self {
            pod,
            open: HashMap::new(),
            look_at: 64,
        }
    }

    /// Sends a datagram on to its server.
    pub fn forward(&mut self, asked: Asked, server: SocketAddr, datagram: &[u8]) {
        let flow = self.open.get(&(asked.client, asked.token));
        let upstream = match flow.and_then(|flow| flow.upstream.upgrade()) {
            Some(upstream) => Ok(Some(upstream)),
            None => self.start(asked, server),
        };
        let counters = &self.pod.datagrams;
        match upstream {
            Ok(Some(upstream)) => {
                upstream.used.touch();
                // Not through tokio, which takes a socket to be full until it has heard otherwise. A
                // datagram that finds no room is lost, as it may be anywhere on its way; what the
                // server's machine says of earlier ones comes with the next receive.
                match SockRef::from(&upstream.socket).send(datagram) {
                    Ok(_) => add(&counters.sent),
                    Err(_lost) => add(&counters.dropped),
                }
            }
            Ok(None) => add(&counters.dropped),
            Err(error) => {
                tracing::debug!(
                    "pod at {}: datagrams to {server}: {error}",
                    self.pod.netns.path().display()
                );
                add(&counters.dropped);
            }
        }
    }

    /// `None` when there are too many.
    fn start(&mut self, asked: Asked, server: SocketAddr) -> io::Result<Option<Arc<Upstream>>> {
        if self.open.len() >= self.look_at {
            self.open.retain(|_, flow| flow.upstream.strong_count() > 0);
            self.look_at = (2 * self.open.len()).clamp(64, MOST);
        }
        if self.open.len() >= MOST {
            return Ok(None);
        }
        let Some(room) = capacity::try_room() else {
            return Ok(None);
        };
        let upstream = Arc::new(Upstream {
            socket: upstream::datagrams(&self.pod.netns, &self.pod.maps, server)?,
            used: LastUse::now(),
        });
        let pod = Arc::clone(&self.pod);
        let key = (asked.client, asked.token);
        let weak = Arc::downgrade(&upstream);
        let owned = Arc::clone(&upstream);
        add(&pod.datagrams.flows);
        let task = tokio::spawn(async move {
            let _open = Open::new(&pod.datagrams);
            let ended = answer(&owned, &asked, &pod).await;
            if let Err(error) = ended {
                tracing::debug!(
                    "pod at {}: datagrams of {server}: {error}",
                    pod.netns.path().display()
                );
            }
            drop(room);
        });
        let flow = Flow {
            upstream: weak,
            task: task.abort_handle(),
        };
        self.open.insert(key, flow);
        Ok(Some(upstream))
    }
}

/// Sends the app what the server sends, until nothing is sent either way any more.
async fn answer(upstream: &Upstream, asked: &Asked, pod: &PodProxy) -> io::Result<()> {
    let Upstream { socket, used } = upstream;
    loop {
        let deadline = used.get() + pod.datagram_idle;
        if timeout_at(deadline, socket.readable()).await.is_err() {
            if used.get() + pod.datagram_idle > Instant::now() {
                continue;
            }
            return Ok(());
        }
        let sent = with_scratch(|scratch| {
            let count = socket.try_recv(scratch)?;
            asked.answer(&scratch[..count])
        });
        match sent {
            Ok(()) => {
                used.touch();
                add(&pod.datagrams.received);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Nobody listens there, for now: the app will ask again or not.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
}

/// Counts as an open flow, until dropped.
struct Open<'a>(&'a DatagramCounters);

impl<'a> Open<'a> {
    fn new(counters: &'a DatagramCounters) -> Self {
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
