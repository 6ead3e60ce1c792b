//! What the agent told at one moment.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::admin::{
    client,
    latency::{Latency, Measured, Trace},
    model::{Destination, Limits, Pod, Seen, Status},
};
use crate::config::Protocol;

/// Requests of a destination that are asked for.
const TRACES: usize = 20;

/// What the agent told at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub at: Instant,
    /// The same, in seconds since 1970.
    pub clock: f64,
    pub status: Status,
    pub pods: Vec<Pod>,
    pub destinations: Vec<Destination>,
    pub latency: Latency,
    /// Of the destination that is looked at closely.
    pub traces: Vec<Trace>,
}

impl Snapshot {
    /// Asks for all of it, with the last requests of `destination`.
    pub fn take(socket: &Path, destination: Option<&str>) -> anyhow::Result<Self> {
        let traces = match destination {
            Some(name) => {
                let name = client::encoded(name);
                client::get(socket, &format!("/traces?n={TRACES}&destination={name}"))?
            }
            None => Vec::new(),
        };
        let mut destinations: Vec<Destination> = client::get(socket, "/destinations")?;
        let latency: Latency = client::get(socket, "/latency")?;
        add_measured(&mut destinations, &latency);
        Ok(Self {
            status: client::get(socket, "/status")?,
            pods: client::get(socket, "/pods")?,
            destinations,
            latency,
            traces,
            at: Instant::now(),
            clock: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
        })
    }

    /// Where the time of requests to `destination` went.
    pub fn measured(&self, destination: &str) -> Option<&Measured> {
        let mut all = self.latency.destinations.iter();
        all.find(|it| it.destination == destination)
    }
}

/// Not everything that is measured is a destination: DNS is not, nor what is counted together as `others`.
pub(super) fn add_measured(destinations: &mut Vec<Destination>, latency: &Latency) {
    for measured in &latency.destinations {
        let name = &measured.destination;
        if destinations.iter().all(|it| it.name != *name) {
            destinations.push(only_measured(name.clone()));
        }
    }
}

/// One of which nothing is counted.
fn only_measured(name: String) -> Destination {
    Destination {
        name,
        protocol: Protocol::Auto,
        active: 0,
        answered: BTreeMap::new(),
        retries: 0,
        hedges: 0,
        hedges_won: 0,
        retries_over_budget: 0,
        own_answers: BTreeMap::new(),
        would_refuse: BTreeMap::new(),
        degraded: 0,
        breaker: None,
        throttled: None,
        limits: Limits::default(),
        seen: Seen {
            seconds: 0.0,
            most_active: 0,
            times: None,
        },
        endpoints: Vec::new(),
    }
}
