//! What the requests of one client connection have in common.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, Response};

use super::{body::AnswerBody, headers, reason::Reason, strict_io::Refusal};
use crate::{
    policy::balance::{HashKey, hash},
    proxy::{
        PodProxy,
        destinations::{Destination, Destinations, RequestCounters, Route},
    },
};

/// A client's connection.
#[derive(Debug)]
pub struct Session {
    /// The pod it comes from.
    pub pod: Arc<PodProxy>,
    /// The client's end.
    pub client: SocketAddr,
    /// The address that the app had bound its socket to.
    pub source: Option<IpAddr>,
    /// What is wrong with its last request, if anything is.
    pub refusal: Arc<Refusal>,
    original: SocketAddr,
    known: Mutex<Known>,
}

/// What was found out for the running configuration.
#[derive(Debug)]
struct Known {
    destinations: Arc<Destinations>,
    route: Route,
    /// The only destination, when requests need not be told apart by host.
    only: Option<Arc<Destination>>,
}

impl Known {
    fn new(destinations: Arc<Destinations>, route: Route) -> Self {
        let only = route.only();
        Self {
            destinations,
            route,
            only,
        }
    }
}

impl Session {
    /// A connection of `client`'s to where `route` leads.
    pub fn new(
        pod: Arc<PodProxy>,
        client: SocketAddr,
        source: Option<IpAddr>,
        destinations: Arc<Destinations>,
        route: Route,
    ) -> Self {
        Self {
            pod,
            client,
            source,
            refusal: Arc::default(),
            original: route.original(),
            known: Mutex::new(Known::new(destinations, route)),
        }
    }

    /// What a request is for, by the configuration that runs now.
    pub fn destination<B>(&self, request: &Request<B>) -> Arc<Destination> {
        let now = self.pod.destinations.get();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&now, &known.destinations) {
            let route = now.route_of_request(self.original);
            *known = Known::new(now, route);
        }
        if let Some(only) = &known.only {
            return Arc::clone(only);
        }
        let host = headers::host(request).unwrap_or_default();
        known.route.by_host(&host)
    }

    /// The answer to a request that is not forwarded.
    pub fn refuse<B>(&self, request: &Request<B>, reason: Reason) -> Response<AnswerBody> {
        let counters = &self.destination(request).counters;
        RequestCounters::count(&counters.own_answers[reason.number()]);
        RequestCounters::count(&counters.answered[3]);
        reason.answer(false)
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
