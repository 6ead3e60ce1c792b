//! What the requests of one client connection have in common.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use http::{Request, Response, StatusCode};

use super::{
    body::AnswerBody, headers, http2::StreamStamps, interim::Interim, observed::Observed,
    reason::Reason, receipts::Receipts, strict_io::Refusal, upstream::Key,
};
use crate::{
    policy::balance::{HashKey, hash},
    proxy::{
        PodProxy,
        destinations::{Destination, Target},
        upstream::SeenAs,
    },
};

/// A client's connection.
#[derive(Debug)]
pub struct Session {
    /// The pod it comes from.
    pub pod: Arc<PodProxy>,
    /// That pod's name.
    pub pod_name: Arc<str>,
    /// The client's end.
    pub client: SocketAddr,
    /// Whom servers take for their client.
    pub seen_as: SeenAs,
    /// What servers said before their answers.
    pub interim: Arc<Interim>,
    /// What is wrong with its last request, if anything is.
    pub refusal: Arc<Refusal>,
    /// What is known of its packets.
    pub stamps: Stamps,
    target: Target,
}

/// What is known of the packets of a client's connection.
#[derive(Debug)]
pub enum Stamps {
    /// It is not one of HTTP.
    None,
    /// By request, with HTTP/1.
    Requests(Arc<Receipts>),
    /// By stream, with HTTP/2.
    Streams(Arc<StreamStamps>),
}

impl Session {
    /// A connection of `client`'s, whose requests are for `target`.
    pub fn new(pod: Arc<PodProxy>, client: SocketAddr, seen_as: SeenAs, target: Target) -> Self {
        Self {
            pod_name: pod.servers.pod(),
            pod,
            client,
            seen_as,
            interim: Arc::default(),
            refusal: Arc::default(),
            stamps: Stamps::None,
            target,
        }
    }

    /// Its requests come one after the other: each can be measured.
    pub fn in_order(mut self) -> (Self, Arc<Receipts>) {
        let receipts = Arc::new(Receipts::new(Arc::clone(&self.pod.latency)));
        let sampler = &self.target.by_address().sampler;
        receipts.want(self.pod.latency.chooses(sampler, Instant::now()));
        self.stamps = Stamps::Requests(Arc::clone(&receipts));
        (self, receipts)
    }

    /// Its requests come on streams: each can be measured.
    pub fn on_streams(mut self) -> (Self, Arc<StreamStamps>) {
        let book = Arc::clone(&self.pod.latency);
        let sampler = &self.target.by_address().sampler;
        let stamps = Arc::new(StreamStamps::of_client(book, sampler));
        self.stamps = Stamps::Streams(Arc::clone(&stamps));
        (self, stamps)
    }

    /// What a request is for, by the configuration that runs now.
    pub fn destination<B>(&self, request: &Request<B>) -> Arc<Destination> {
        let now = || self.pod.destinations.get();
        self.target.of_request(now, || headers::host(request))
    }

    /// Whether it came from outside, to a server of the pod.
    pub const fn is_inbound(&self) -> bool {
        matches!(self.seen_as, SeenAs::Client { .. })
    }

    /// The answer to a request that is not forwarded.
    pub fn refuse<B>(&self, request: &Request<B>, reason: Reason) -> Response<AnswerBody> {
        let destination = self.destination(request);
        let mut answer = reason.answer(false);
        self.count(&destination, answer.status(), Some(reason));
        Observed::refused(self, &destination.name, request, reason, &mut answer);
        answer
    }

    /// A request is answered; by the agent itself, if with a reason.
    pub fn count(&self, destination: &Destination, status: StatusCode, own: Option<Reason>) {
        destination.counters.answer(status.as_u16(), own);
        let traffic = &self.pod.traffic;
        traffic.count(&destination.name, status.as_u16(), own);
    }

    /// What consistent hashing goes by.
    pub fn hash<B>(&self, request: &Request<B>, key: &HashKey) -> Option<u64> {
        let hash = |bytes: &[u8]| hash(bytes, 0);
        match key {
            HashKey::Source => Some(match self.client.ip().to_canonical() {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
            HashKey::Header(name) => request.headers().get(name).map(|it| hash(it.as_bytes())),
            HashKey::Cookie(name) => headers::cookie(request.headers(), name).map(hash),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nobody else is seen as this client.
        if self.is_inbound() {
            let server = self.target.by_address();
            for endpoint in &server.endpoints {
                self.pod.pools.forget(Key {
                    server: endpoint.address,
                    seen_as: self.seen_as,
                });
            }
        }
    }
}
