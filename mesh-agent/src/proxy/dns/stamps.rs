//! When a query went to its server, and when the answer came.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Instant,
};

use http::Method;
use tokio::{io::Interest, net::UdpSocket};

use super::query::Query;
use crate::{
    latency::{
        self, Account, Arrival, Asked, Nanos, Outcome, Source, Stages, Stamp, TcpInfo, Trace,
        TransmitLog, Waypoints, whole_way,
    },
    proxy::{pod_proxy::PodProxy, scratch::with_scratch},
};

/// The destination whose figures are those of DNS.
pub const DESTINATION: &str = "dns";
static DNS: LazyLock<Arc<str>> = LazyLock::new(|| DESTINATION.into());

/// What stands for a method.
fn method() -> Method {
    Method::from_bytes(b"DNS").unwrap_or_default()
}

/// The stamps of one query.
#[derive(Debug)]
pub struct DnsStamps {
    /// Somebody waits for such a query.
    is_wanted: bool,
    stamped: Mutex<Stamped>,
}

#[derive(Debug, Default)]
struct Stamped {
    transmit: TransmitLog,
    sent: u64,
    first_try: Option<Nanos>,
    last_try: Nanos,
    answered: Option<Arrival>,
}

impl DnsStamps {
    /// Of a query that was not sent yet.
    pub fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            stamped: Mutex::default(),
        }
    }

    /// Sends to the server that `socket` is connected to, with a stamp.
    pub fn send(&self, socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
        let mut stamped = self.lock();
        if stamped.first_try.is_none() {
            latency::prepare_datagrams(socket)?;
        }
        let now = Nanos::now();
        stamped.first_try.get_or_insert(now);
        stamped.last_try = now;
        socket.try_io(Interest::WRITABLE, || {
            latency::send(socket, &[IoSlice::new(bytes)], Some(Asked::SENT))
        })?;
        // Datagrams are counted, not bytes.
        stamped.sent += 1;
        let sent = stamped.sent;
        stamped.transmit.wrote(sent, Nanos::now(), Asked::SENT);
        Ok(())
    }

    /// Receives what may be the answer.
    pub fn try_receive(&self, socket: &UdpSocket) -> io::Result<Vec<u8>> {
        let (bytes, stamps) = with_scratch(|scratch| {
            socket.try_io(Interest::READABLE, || {
                let (count, stamps) = latency::receive(socket, &mut &mut scratch[..])?;
                Ok((scratch[..count].to_vec(), stamps))
            })
        })?;
        let mut stamped = self.lock();
        stamped.answered = Some(Arrival::now(stamps));
        latency::drain(socket, |stamp| stamped.transmit.stamped(stamp));
        Ok(bytes)
    }

    /// The answer came another way: the stamps say nothing of it.
    pub fn discard(&self) {
        self.lock().answered = None;
    }

    /// The app has its answer: tells where the time went, if a server was asked.
    pub fn tell(&self, asks: &PodProxy, server: SocketAddr, query: &Query, came: Arrival) {
        let (book, pod, sampler) = (&asks.latency, &asks.servers.pod(), asks.resolver.sampler());
        let now = Nanos::now();
        let mut stamped = self.lock();
        book.count(stamped.transmit.take_counts());
        let (Some(write), Some(answered)) = (stamped.transmit.last_since(0), stamped.answered)
        else {
            return;
        };
        let way = Waypoints {
            received_first: came,
            received_last: came,
            first_try: stamped.first_try.unwrap_or(stamped.last_try),
            last_try: stamped.last_try,
            connected: stamped.last_try,
            written: write.written,
            scheduled: write.scheduled,
            sent: write.left(),
            answered_first: answered,
            answered_last: answered,
            answer_written: now,
            // Over loopback: the app's socket has it by now.
            replied: Stamp {
                at: now,
                source: Source::Clock,
                uncertainty: 0,
            },
            ..Waypoints::default()
        };
        let outcome = Outcome {
            stages: Stages::of(&way),
            source: way.sent.source,
            info: TcpInfo::default(),
            resent: 0,
        };
        let now = Instant::now();
        let account = Account::of(book, pod, &DNS, server, now);
        account.begun();
        account.add(outcome, now);
        // Not before: what the agent knows itself is none that somebody waits for.
        let is_wanted = self.is_wanted && sampler.served();
        if whole_way::is_turn(now) || is_wanted {
            book.remember(Trace {
                key: account.key().clone(),
                method: method(),
                path: query.name().as_str().into(),
                status: 0,
                trace: None,
                tries: stamped.sent as u32,
                way,
                outcome,
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stamped> {
        let stamped = self.stamped.lock();
        stamped.unwrap_or_else(PoisonError::into_inner)
    }
}
