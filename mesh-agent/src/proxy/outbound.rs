//! A connection from an app: what it speaks, and how it gets to its destination.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    PodProxy,
    connection::{Accepted, Moved, join, log_failure},
    destinations::{Destination, Destinations, Route},
    detect::{detect, is_waiting_for_http2},
    dns,
    given_up::given_up,
    http, upstream,
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

/// How long a client is waited for where the last one spoke HTTP.
const HEAD_START: Duration = Duration::from_millis(20);

/// How long a client is waited for when its server has shown that it speaks HTTP/2.
const HTTP2_CLIENT: Duration = Duration::from_secs(1);

/// Carries a connection to its end.
pub(super) async fn carry(
    client: TcpStream,
    accepted: &Accepted,
    pod: &Arc<PodProxy>,
    moved: &Arc<Moved>,
) -> io::Result<()> {
    let original = accepted.destination;
    if pod.is_dns(original.port()) {
        return dns::serve_stream(client, original, pod, &moved.sent, &moved.received).await;
    }
    let app = App {
        client,
        address: accepted.client,
        source: bound_source(accepted.client.ip()),
        pod,
        moved,
    };
    let destinations = pod.destinations.get();
    let Some(route) = destinations.route(original) else {
        let connected = app.connect_to(original).await;
        return app.forward(connected, original).await;
    };
    match route.protocol() {
        Protocol::Tcp => app.forward_to(&route.by_address()).await,
        Protocol::Http1 => app.serve(Spoken::Http1, destinations, route).await,
        Protocol::Http2 => app.serve(Spoken::Http2, destinations, route).await,
        Protocol::Auto => app.find_out(destinations, route).await,
    }
}

/// An app's connection.
struct App<'a> {
    client: TcpStream,
    address: SocketAddr,
    source: Option<IpAddr>,
    pod: &'a Arc<PodProxy>,
    moved: &'a Arc<Moved>,
}

/// Who spoke first.
enum First {
    Client(Spoken, Option<(SocketAddr, TcpStream)>),
    Server(TcpStream),
    /// The client has given up.
    Nobody,
}

impl App<'_> {
    /// Looks at the client's first bytes; meanwhile connects, for protocols in which the server speaks
    /// first.
    async fn find_out(self, destinations: Arc<Destinations>, route: Route) -> io::Result<()> {
        let destination = route.by_address();
        let first = self.first(&destination).await.inspect_err(|error| {
            self.count_failure(route.original(), error);
        });
        let first = first?;
        let is_http = matches!(first, First::Client(Spoken::Http1 | Spoken::Http2, _));
        destination.speaks_http.store(is_http, Ordering::Relaxed);
        match first {
            First::Client(spoken @ (Spoken::Http1 | Spoken::Http2), connected) => {
                if let Some((server, stream)) = connected
                    && spoken == Spoken::Http1
                {
                    self.keep(&destination, server, stream).await;
                }
                self.serve(spoken, destinations, route).await
            }
            First::Client(Spoken::Tls | Spoken::Tcp, Some((_, server))) | First::Server(server) => {
                join(&self.client, &server, self.moved).await
            }
            First::Client(Spoken::Tls | Spoken::Tcp, None) => self.forward_to(&destination).await,
            First::Nobody => Ok(()),
        }
    }

    async fn first(&self, destination: &Destination) -> io::Result<First> {
        let mut told = pin!(detect(&self.client));
        // A connection made for nothing would be one too many for each client's.
        if destination.speaks_http.load(Ordering::Relaxed)
            && let Ok(told) = timeout(HEAD_START, &mut told).await
        {
            return Ok(First::Client(told?, None));
        }
        let connected = tokio::select! {
            biased;
            // Most clients have spoken already.
            told = &mut told => return Ok(First::Client(told?, None)),
            connected = self.connect(destination) => connected,
        };
        match connected {
            Ok(Some((server, stream))) => {
                tokio::select! {
                    biased;
                    told = &mut told => return Ok(First::Client(told?, Some((server, stream)))),
                    // An end or an error is as good.
                    _ = stream.readable() => {}
                }
                if is_waiting_for_http2(&stream)
                    && let Ok(told) = timeout(HTTP2_CLIENT, told).await
                {
                    return Ok(First::Client(told?, Some((server, stream))));
                }
                Ok(First::Server(stream))
            }
            Ok(None) => Ok(First::Nobody),
            Err(error) => match timeout(LAST_CHANCE, told).await {
                Ok(Ok(spoken @ (Spoken::Http1 | Spoken::Http2))) => Ok(First::Client(spoken, None)),
                _ => Err(error),
            },
        }
    }

    /// Keeps a connection that was made too early for the requests to come.
    async fn keep(&self, destination: &Destination, server: SocketAddr, stream: TcpStream) {
        let key = http::Key {
            server,
            source: self.source,
        };
        let idle = destination.policy.idle;
        if let Ok(upstream) = http::Upstream::new(stream, key, idle).await {
            self.pod.pools.http1.put(upstream);
        }
    }

    async fn serve(
        self,
        spoken: Spoken,
        destinations: Arc<Destinations>,
        route: Route,
    ) -> io::Result<()> {
        let pod = Arc::clone(self.pod);
        let finishing = pod.connections.finishing();
        let session = http::Session::new(pod, self.address, self.source, destinations, route);
        let moved = Arc::clone(self.moved);
        if spoken == Spoken::Http2 {
            http::serve_http2(self.client, session, moved, finishing).await
        } else {
            http::serve_http1(self.client, session, moved, finishing).await
        }
    }

    async fn forward_to(self, destination: &Destination) -> io::Result<()> {
        let connected = self.connect(destination).await;
        let connected = connected.map(|connected| connected.map(|(_, server)| server));
        let original = destination.endpoints.first().map(|it| it.address);
        let original = original.unwrap_or(self.address);
        self.forward(connected, original).await
    }

    async fn forward(
        self,
        connected: io::Result<Option<TcpStream>>,
        destination: SocketAddr,
    ) -> io::Result<()> {
        let connected = connected.inspect_err(|error| self.count_failure(destination, error));
        match connected? {
            Some(server) => join(&self.client, &server, self.moved).await,
            None => Ok(()),
        }
    }

    fn count_failure(&self, destination: SocketAddr, error: &io::Error) {
        self.pod.connections.count_failed();
        log_failure(&self.pod.netns, destination, error);
    }

    /// Connects to a server of a destination, by its policy; `None` when the client has given up.
    async fn connect(
        &self,
        destination: &Destination,
    ) -> io::Result<Option<(SocketAddr, TcpStream)>> {
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
                Ok(server) => {
                    destination.answered(&endpoint, now.elapsed(), Instant::now());
                    return Ok(server.map(|server| (endpoint.address, server)));
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
        let connecting = upstream::connect(&self.pod.netns, &self.pod.maps, server, self.source);
        tokio::select! {
            connected = connecting => connected.map(Some),
            () = given_up(&self.client) => Ok(None),
        }
    }
}

/// The address that the app had bound its socket to. Without one it has the loopback address that
/// the redirection led to.
fn bound_source(client: IpAddr) -> Option<IpAddr> {
    (!client.is_loopback()).then_some(client)
}
