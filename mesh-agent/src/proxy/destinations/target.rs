//! What a connection's requests may be for.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Destination, Destinations, Route};

/// What a connection's requests may be for.
#[derive(Debug)]
pub enum Target {
    /// What the configuration has for where an app wanted to go.
    Configured(Configured),
    /// One server.
    Server(Arc<Destination>),
}

/// What the configuration has for a connection. It may change while the connection lasts.
#[derive(Debug)]
pub struct Configured(Mutex<Known>);

/// What was found out for one configuration.
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

impl Target {
    /// What `destinations` have for a connection.
    pub fn configured(destinations: Arc<Destinations>, route: Route) -> Self {
        Self::Configured(Configured(Mutex::new(Known::new(destinations, route))))
    }

    /// Where a connection goes that is no HTTP.
    pub fn by_address(&self) -> Arc<Destination> {
        match self {
            Self::Configured(Configured(known)) => {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.route.by_address()
            }
            Self::Server(server) => Arc::clone(server),
        }
    }

    /// Where a TLS connection goes that may name its server.
    pub fn of_tls(&self, server_name: Option<&str>) -> Arc<Destination> {
        match (self, server_name) {
            (Self::Configured(Configured(known)), Some(name)) => {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.route.by_host(name)
            }
            _ => self.by_address(),
        }
    }

    /// Where a request for a host goes, by the configuration that runs `now`.
    pub fn of_request(
        &self,
        now: impl FnOnce() -> Arc<Destinations>,
        host: impl FnOnce() -> Option<String>,
    ) -> Arc<Destination> {
        let known = match self {
            Self::Configured(Configured(known)) => known,
            Self::Server(server) => return Arc::clone(server),
        };
        let now = now();
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&now, &known.destinations) {
            let route = now.route_of_request(known.route.original());
            *known = Known::new(now, route);
        }
        match &known.only {
            Some(only) => Arc::clone(only),
            None => known.route.by_host(&host().unwrap_or_default()),
        }
    }
}
