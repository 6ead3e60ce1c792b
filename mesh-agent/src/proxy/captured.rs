//! A captured connection: what it speaks, and how it gets to a server.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    PodProxy,
    connection::{Moved, join, log_failure},
    destinations::{Destination, Endpoint, RequestCounters, Target},
    detect::{Detected, detect, is_waiting_for_http2},
    given_up::given_up,
    http,
    protection::{Admitted, Asking, Refusal, Slot, connection_slot, let_through},
    upstream::{self, SeenAs},
    without_requests,
};
use crate::{
    config::Protocol,
    policy::{
        detection::Spoken,
        retry::{Pushback, Repeatable, TryOutcome},
    },
};

/// How long a client may take to say that it speaks HTTP, and so can be told what is wrong, when its
/// destination cannot be reached.
const LAST_CHANCE: Duration = Duration::from_millis(100);

/// How long a client is waited for where the last one spoke first.
const HEAD_START: Duration = Duration::from_millis(20);

/// How long a client is waited for when its server has shown that it speaks HTTP/2.
const HTTP2_CLIENT: Duration = Duration::from_secs(1);

/// A captured connection.
pub(super) struct Captured<'a> {
    /// The client.
    pub client: TcpStream,
    /// Its end.
    pub address: SocketAddr,
    /// Whom servers take for it.
    pub seen_as: SeenAs,
    /// The pod it comes from or goes to.
    pub pod: &'a Arc<PodProxy>,
    /// Its bytes.
    pub moved: &'a Arc<Moved>,
}

/// A connection to a server of a destination.
struct Connected {
    endpoint: Arc<Endpoint>,
    stream: TcpStream,
    took: Duration,
}

/// Who spoke first.
enum First {
    Client(Detected, Option<Connected>),
    Server(Connected),
    /// The client has given up.
    Nobody,
}

impl Captured<'_> {
    /// Carries it to its end, by what is spoken there.
    pub async fn carry(
        self,
        protocol: Protocol,
        original: SocketAddr,
        target: Target,
    ) -> io::Result<()> {
        match protocol {
            Protocol::Tcp => self.forward_to(&target.by_address()).await,
            Protocol::Http1 => self.serve(Spoken::Http1, target).await,
            Protocol::Http2 => self.serve(Spoken::Http2, target).await,
            Protocol::Auto => self.find_out(original, target).await,
        }
    }

    /// Forwards it to one server, byte by byte.
    pub async fn carry_to(self, server: SocketAddr) -> io::Result<()> {
        let connected = self.connect_to(server).await;
        let connected = connected.inspect_err(|error| self.count_failure(server, error));
        match connected? {
            Some(server) => join(&self.client, &server, self.moved).await,
            None => Ok(()),
        }
    }

    /// Looks at the client's first bytes; meanwhile connects, for protocols in which the server speaks
    /// first.
    async fn find_out(self, original: SocketAddr, target: Target) -> io::Result<()> {
        let destination = target.by_address();
        let first = self.first(&destination).await.inspect_err(|error| {
            self.count_failure(original, error);
        });
        let first = first?;
        if let First::Client(detected, _) = &first {
            let _known = self.moved.detected.set(detected.clone());
        }
        // Whoever speaks neither may be of a protocol in which the server speaks first.
        let speaks_first =
            matches!(&first, First::Client(detected, _) if detected.spoken != Spoken::Tcp);
        let likely = &destination.client_speaks_first;
        likely.store(speaks_first, Ordering::Relaxed);
        let (detected, connected) = match first {
            First::Client(detected, connected) => (detected, connected),
            First::Server(connected) => {
                self.pod.detection.server_spoke_first();
                return self.join(&destination, connected).await;
            }
            First::Nobody => return Ok(()),
        };
        match (detected.spoken, connected) {
            (spoken @ (Spoken::Http1 | Spoken::Http2), connected) => {
                if let Some(connected) = connected
                    && spoken == Spoken::Http1
                {
                    self.keep(&destination, connected).await;
                }
                self.serve(spoken, target).await
            }
            (Spoken::Tls, connected) => {
                let name = detected.server_name.as_deref();
                let named = target.of_tls(name);
                if let Some(name) = name {
                    self.pod.detection.named(&named.name, name);
                }
                match connected.filter(|_| Arc::ptr_eq(&named, &destination)) {
                    Some(connected) => self.join(&named, connected).await,
                    None => self.forward_to(&named).await,
                }
            }
            (Spoken::Tcp, Some(connected)) => self.join(&destination, connected).await,
            (Spoken::Tcp, None) => self.forward_to(&destination).await,
        }
    }

    async fn first(&self, destination: &Arc<Destination>) -> io::Result<First> {
        let mut told = pin!(detect(&self.client, &self.pod.detection));
        // A connection made for nothing would be one too many for each client's.
        if destination.client_speaks_first.load(Ordering::Relaxed)
            && let Ok(told) = timeout(HEAD_START, &mut told).await
        {
            return Ok(First::Client(told?, None));
        }
        // Most clients have spoken already.
        let at_once = poll_fn(|context| Poll::Ready(told.as_mut().poll(context)));
        if let Poll::Ready(told) = at_once.await {
            return Ok(First::Client(told?, None));
        }
        if destination.is_broken(Instant::now()) {
            // It says so.
            self.be_admitted(destination).await?;
        }
        let mut connecting = pin!(self.connect(destination));
        let connected = tokio::select! {
            biased;
            told = &mut told => {
                // Begun, the server may have seen it: it is to be of use.
                let connected = timeout(HEAD_START, connecting).await;
                let connected = connected.ok().and_then(Result::ok).flatten();
                return Ok(First::Client(told?, connected));
            }
            connected = &mut connecting => connected,
        };
        match connected {
            Ok(Some(connected)) => {
                tokio::select! {
                    biased;
                    told = &mut told => return Ok(First::Client(told?, Some(connected))),
                    // An end or an error is as good.
                    _ = connected.stream.readable() => {}
                }
                if is_waiting_for_http2(&connected.stream)
                    && let Ok(told) = timeout(HTTP2_CLIENT, told).await
                {
                    return Ok(First::Client(told?, Some(connected)));
                }
                Ok(First::Server(connected))
            }
            Ok(None) => Ok(First::Nobody),
            Err(error) => match timeout(LAST_CHANCE, told).await {
                Ok(Ok(detected)) if matches!(detected.spoken, Spoken::Http1 | Spoken::Http2) => {
                    Ok(First::Client(detected, None))
                }
                _ => {
                    let (admitted, _) = self.be_admitted(destination).await?;
                    if let Some(mut admitted) = admitted {
                        let took = destination.policy.connect;
                        admitted.ended(TryOutcome::ConnectFailure, took, Instant::now());
                    }
                    Err(error)
                }
            },
        }
    }

    /// Keeps a connection that was made too early for the requests to come.
    async fn keep(&self, destination: &Destination, connected: Connected) {
        let key = http::Key {
            server: connected.endpoint.address,
            seen_as: self.seen_as,
        };
        let idle = destination.policy.idle;
        if let Ok(upstream) = http::Upstream::new(connected.stream, key, idle).await {
            self.pod.pools.here().http1.put(upstream);
        }
    }

    async fn serve(self, spoken: Spoken, target: Target) -> io::Result<()> {
        let pod = Arc::clone(self.pod);
        let finishing = pod.connections.finishing();
        let session = http::Session::new(pod, self.address, self.seen_as, target);
        let moved = Arc::clone(self.moved);
        if spoken == Spoken::Http2 {
            http::serve_http2(self.client, session, moved, finishing).await
        } else {
            http::serve_http1(self.client, session, moved, finishing).await
        }
    }

    async fn forward_to(self, destination: &Arc<Destination>) -> io::Result<()> {
        let (mut admitted, slot) = self.be_admitted(destination).await?;
        let begun = Instant::now();
        let connected = self.connect(destination).await.inspect_err(|error| {
            let server = destination.endpoints.first().map(|it| it.address);
            self.count_failure(server.unwrap_or(self.address), error);
            if let Some(admitted) = &mut admitted {
                admitted.ended(TryOutcome::ConnectFailure, begun.elapsed(), Instant::now());
            }
        });
        match connected? {
            Some(connected) => self.carry_on(destination, connected, admitted, slot).await,
            None => Ok(()),
        }
    }

    /// Joins it to a server that it was connected to before it was known what it speaks.
    async fn join(self, destination: &Arc<Destination>, connected: Connected) -> io::Result<()> {
        let (admitted, slot) = self.be_admitted(destination).await?;
        self.carry_on(destination, connected, admitted, slot).await
    }

    async fn carry_on(
        self,
        destination: &Destination,
        connected: Connected,
        mut admitted: Option<Admitted>,
        _slot: Option<Slot>,
    ) -> io::Result<()> {
        let now = Instant::now();
        destination.answered(&connected.endpoint, connected.took, now);
        if let Some(admitted) = &mut admitted {
            admitted.connected(connected.took, now);
        }
        let joined = join(&self.client, &connected.stream, self.moved);
        let (pod, server) = (self.pod, &connected.stream);
        if !pod.latency.chooses(&destination.sampler, now) {
            return joined.await;
        }
        let endpoint = &connected.endpoint;
        // On the heap: most are not measured.
        Box::pin(without_requests::told(
            joined,
            pod,
            destination,
            endpoint,
            server,
        ))
        .await
    }

    /// A connection that carries no requests is one itself, for breaker and limits.
    async fn be_admitted(
        &self,
        destination: &Arc<Destination>,
    ) -> io::Result<(Option<Admitted>, Option<Slot>)> {
        let Some(policy) = &destination.policy.protection else {
            return Ok((None, None));
        };
        let pod = self.pod.servers.pod();
        let asking = Asking {
            pod: &pod,
            headers: None,
            is_critical: false,
        };
        let refused = |refusal: Refusal| {
            RequestCounters::count(&destination.counters.own_answers[refusal.reason.number()]);
            let code = refusal.reason.code();
            io::Error::other(format!("destination {}: {code}", destination.name))
        };
        let shared = self.pod.shared_rates.as_deref();
        let admitted = let_through(destination, shared, policy, &asking, Instant::now());
        let admitted = admitted.await.map_err(refused)?;
        sleep(admitted.wait).await;
        let slot = connection_slot(destination, policy, destination.policy.connect);
        Ok((Some(admitted), slot.await.map_err(refused)?))
    }

    fn count_failure(&self, destination: SocketAddr, error: &io::Error) {
        self.pod.connections.count_failed();
        log_failure(&self.pod.netns, destination, error);
    }

    /// Connects to a server of a destination, by its policy; `None` when the client has given up.
    async fn connect(&self, destination: &Destination) -> io::Result<Option<Connected>> {
        let mut tried = Vec::new();
        loop {
            let now = Instant::now();
            let endpoint = destination
                .pick(None, &tried, now)
                .ok_or_else(|| io::Error::other("the destination has no endpoints"))?;
            let connecting = timeout(
                destination.policy.connect,
                self.connect_to(endpoint.address),
            );
            let connected = connecting
                .await
                .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
            let error = match connected {
                Ok(stream) => {
                    let took = now.elapsed();
                    return Ok(stream.map(|stream| Connected {
                        endpoint,
                        stream,
                        took,
                    }));
                }
                Err(error) => error,
            };
            destination.failed(&endpoint, now.elapsed(), Instant::now());
            let further = tried.len() as u32;
            tried.push(endpoint.address);
            let Some(retries) = &destination.policy.retries else {
                return Err(error);
            };
            let nothing_sent = Repeatable {
                is_idempotent: true,
                has_body: true,
            };
            let next = retries.policy.next(
                TryOutcome::ConnectFailure,
                nothing_sent,
                further,
                Pushback::None,
                None,
                rand::random(),
            );
            let (Ok(wait), Some(_place)) = (next, destination.budget.take(retries.budget)) else {
                return Err(error);
            };
            sleep(wait).await;
        }
    }

    async fn connect_to(&self, server: SocketAddr) -> io::Result<Option<TcpStream>> {
        let connecting = upstream::connect(&self.pod.netns, &self.pod.maps, server, self.seen_as);
        tokio::select! {
            connected = connecting => connected.map(Some),
            () = given_up(&self.client) => Ok(None),
        }
    }
}
