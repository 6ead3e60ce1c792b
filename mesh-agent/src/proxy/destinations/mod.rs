//! The destinations of the running configuration, and which of them a connection or request is for.

mod destination;
mod endpoint;
mod original;
mod policy;
mod target;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

pub(in crate::proxy) use destination::class;
pub use destination::{Destination, RequestCounters, Server};
pub use endpoint::Endpoint;
pub use policy::{Policy, Retries};
pub use target::Target;

use self::original::OriginalServers;
use crate::config::{self, Config, Protocol};

/// The destinations of one configuration.
#[derive(Debug)]
pub struct Destinations {
    listed: Vec<Arc<Listed>>,
    /// By address and port; port 0 stands for every port. In the order of the file.
    by_address: HashMap<(IpAddr, u16), Vec<Arc<Listed>>>,
    /// Those known by their hosts only, by port.
    by_host: HashMap<u16, Vec<Arc<Listed>>>,
    /// What stands for those that are not in the file.
    unlisted: Option<Arc<Listed>>,
    /// What is done for requests that are for none of them: they are forwarded.
    plain: Arc<Listed>,
}

impl Default for Destinations {
    fn default() -> Self {
        Self {
            listed: Vec::new(),
            by_address: HashMap::new(),
            by_host: HashMap::new(),
            unlisted: None,
            plain: Arc::new(Listed::unlisted(&config::Defaults::default())),
        }
    }
}

/// A destination of the file, or what stands for all that are not in it.
#[derive(Debug)]
struct Listed {
    /// `None` for those that are not in the file.
    name: Option<Arc<str>>,
    hosts: Vec<Box<str>>,
    /// It has no addresses, so only a request's host can be for it.
    is_by_host_only: bool,
    protocol: Protocol,
    policy: Arc<Policy>,
    servers: Servers,
}

#[derive(Debug)]
enum Servers {
    Fixed(Arc<Destination>),
    /// The address that the app connects to.
    Original(OriginalServers),
}

/// The destinations of the running configuration, the same for all pods.
#[derive(Clone, Debug, Default)]
pub struct SharedDestinations(Arc<RwLock<Arc<Destinations>>>);

impl SharedDestinations {
    /// The destinations now.
    pub fn get(&self) -> Arc<Destinations> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of `config` from now on. What is known of servers that stay is kept.
    pub fn apply(&self, config: &Config) {
        let destinations = Destinations::of(config, &self.get());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(destinations);
    }
}

/// What a connection may be for.
#[derive(Clone, Debug)]
pub struct Route {
    candidates: Vec<Arc<Listed>>,
    plain: Arc<Listed>,
    original: SocketAddr,
}

impl Destinations {
    fn of(config: &Config, earlier: &Self) -> Self {
        let now = Instant::now();
        let mut destinations = Self::default();
        for destination in &config.destinations {
            let name: Arc<str> = destination.name.as_str().into();
            let known = earlier
                .listed
                .iter()
                .find(|known| known.name.as_ref() == Some(&name));
            let listed = Arc::new(Listed::of(
                name,
                destination,
                config.agent.zone.as_deref(),
                known.map(|it| &**it),
                now,
            ));
            let port = destination.port.unwrap_or(0);
            for address in &destination.addresses {
                let address = address.to_canonical();
                let here = destinations.by_address.entry((address, port)).or_default();
                here.push(Arc::clone(&listed));
            }
            // Without a port, every connection of every pod would have to be looked into.
            if listed.is_by_host_only && !listed.hosts.is_empty() && port != 0 {
                let here = destinations.by_host.entry(port).or_default();
                here.push(Arc::clone(&listed));
            }
            destinations.listed.push(listed);
        }
        destinations.unlisted = config
            .defaults
            .as_ref()
            .map(|defaults| Arc::new(Listed::unlisted(defaults)));
        destinations
    }

    /// What a connection to `original` may be for; `None` if nothing is to be done for it.
    pub fn route(&self, original: SocketAddr) -> Option<Route> {
        let candidates = self.candidates(original);
        (!candidates.is_empty()).then(|| self.route_among(candidates, original))
    }

    /// What a request on a connection to `original` may be for.
    pub fn route_of_request(&self, original: SocketAddr) -> Route {
        self.route_among(self.candidates(original), original)
    }

    /// The destination of the file with this name, if it has endpoints.
    pub fn named(&self, name: &str) -> Option<Arc<Destination>> {
        let named = |listed: &&Arc<Listed>| listed.name.as_deref() == Some(name);
        match &self.listed.iter().find(named)?.servers {
            Servers::Fixed(destination) => Some(Arc::clone(destination)),
            Servers::Original(_) => None,
        }
    }

    /// Name of the destination of the file that has this address.
    pub fn name_of(&self, address: SocketAddr) -> Option<Arc<str>> {
        let ip = address.ip().to_canonical();
        let mut here = [address.port(), 0]
            .into_iter()
            .filter_map(|port| self.by_address.get(&(ip, port)))
            .flatten();
        here.find_map(|listed| listed.name.clone())
    }

    fn candidates(&self, original: SocketAddr) -> Vec<Arc<Listed>> {
        let address = original.ip().to_canonical();
        let ports = [original.port(), 0];
        let by_address = ports
            .iter()
            .filter_map(|port| self.by_address.get(&(address, *port)));
        let by_host = self.by_host.get(&original.port());
        let listed = by_address.chain(by_host).flatten();
        listed.chain(&self.unlisted).map(Arc::clone).collect()
    }

    fn route_among(&self, candidates: Vec<Arc<Listed>>, original: SocketAddr) -> Route {
        Route {
            candidates,
            plain: Arc::clone(&self.plain),
            original,
        }
    }

    /// Every destination of the file, and those that are not in it and were used.
    pub fn list(&self) -> Vec<Arc<Destination>> {
        let listed = self.listed.iter().chain(&self.unlisted);
        listed.flat_map(|listed| listed.servers.list()).collect()
    }

    /// Forgets those that are not in the file and were not used for long, and their series with them.
    /// Those of the file share a series by name, which must not go back.
    pub fn sweep(&self, now: Instant) {
        for listed in self.unlisted.iter().chain([&self.plain]) {
            if let Servers::Original(known) = &listed.servers {
                known.sweep(now);
            }
        }
    }
}

impl Route {
    /// What is spoken, if all that it may be for agree.
    pub fn protocol(&self) -> Protocol {
        let mut protocols = self.candidates.iter().map(|listed| listed.protocol);
        let first = protocols.next().unwrap_or_default();
        if protocols.all(|protocol| protocol == first) {
            first
        } else {
            Protocol::Auto
        }
    }

    /// Where it goes by its address alone.
    pub fn by_address(&self) -> Arc<Destination> {
        let mut listed = self.candidates.iter();
        let listed = listed.find(|listed| !listed.is_by_host_only);
        listed.unwrap_or(&self.plain).destination(self.original)
    }

    /// Where a request for `host` (in lower case, without a port) goes: to the one that has that
    /// name, or else the longest wildcard for it, or else by address.
    pub fn by_host(&self, host: &str) -> Arc<Destination> {
        // The first of equals.
        let named = self.candidates.iter().rev();
        let named = named.max_by_key(|listed| listed.likeness(host));
        match named.filter(|listed| listed.likeness(host) > 0) {
            Some(listed) => listed.destination(self.original),
            None => self.by_address(),
        }
    }

    /// Where every request goes, whichever host it is for.
    pub fn only(&self) -> Option<Arc<Destination>> {
        let several = self
            .candidates
            .iter()
            .skip(1)
            .any(|it| !it.hosts.is_empty());
        let by_host_only = self.candidates.iter().any(|it| it.is_by_host_only);
        (!several && !by_host_only).then(|| self.by_address())
    }

    /// Where the app wanted to go.
    pub const fn original(&self) -> SocketAddr {
        self.original
    }
}

impl Listed {
    fn unlisted(defaults: &config::Defaults) -> Self {
        Self {
            name: None,
            hosts: Vec::new(),
            is_by_host_only: false,
            protocol: defaults.protocol,
            policy: Arc::new(Policy::from(&defaults.policy)),
            servers: Servers::Original(OriginalServers::new()),
        }
    }

    fn of(
        name: Arc<str>,
        destination: &config::Destination,
        zone: Option<&str>,
        earlier: Option<&Self>,
        now: Instant,
    ) -> Self {
        let policy = Arc::new(Policy::from(&destination.policy));
        let servers: Vec<_> = destination
            .endpoints
            .iter()
            .map(|endpoint| Server {
                address: endpoint.address,
                weight: endpoint.weight,
                is_near: zone.is_none() || endpoint.zone.as_deref() == zone,
            })
            .collect();
        let hosts = destination.hosts.iter();
        Self {
            hosts: hosts.map(|host| host.to_ascii_lowercase().into()).collect(),
            is_by_host_only: destination.addresses.is_empty(),
            protocol: destination.protocol,
            servers: if servers.is_empty() {
                Servers::Original(OriginalServers::new())
            } else {
                let earlier = match earlier.map(|earlier| &earlier.servers) {
                    Some(Servers::Fixed(earlier)) => Some(&**earlier),
                    _ => None,
                };
                Servers::Fixed(Arc::new(Destination::new(
                    Arc::clone(&name),
                    destination.protocol,
                    Arc::clone(&policy),
                    &servers,
                    earlier,
                    now,
                )))
            },
            name: Some(name),
            policy,
        }
    }

    /// How much of `host` one of its names says; 0 if none is for it.
    fn likeness(&self, host: &str) -> usize {
        let hosts = self.hosts.iter();
        let likeness = hosts.map(|known| match known.strip_prefix('*') {
            Some(suffix) if host.len() > suffix.len() && host.ends_with(suffix) => suffix.len(),
            None if host == &**known => usize::MAX,
            _ => 0,
        });
        likeness.max().unwrap_or(0)
    }

    fn destination(&self, original: SocketAddr) -> Arc<Destination> {
        match &self.servers {
            Servers::Fixed(destination) => Arc::clone(destination),
            Servers::Original(known) => known.get(original, |now| {
                let name = self.name.clone();
                Destination::new(
                    name.unwrap_or_else(|| original.to_string().into()),
                    self.protocol,
                    Arc::clone(&self.policy),
                    &[Server::only(original)],
                    None,
                    now,
                )
            }),
        }
    }
}

impl Servers {
    fn list(&self) -> Vec<Arc<Destination>> {
        match self {
            Self::Fixed(destination) => vec![Arc::clone(destination)],
            Self::Original(known) => known.list(),
        }
    }
}

#[cfg(test)]
mod tests;
