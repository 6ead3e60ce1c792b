//! What the agent told at one moment.

use std::{
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::admin::{
    client,
    latency::{Latency, Measured, Trace},
    model::{Destination, Pod, Status},
};

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
        Ok(Self {
            status: client::get(socket, "/status")?,
            pods: client::get(socket, "/pods")?,
            destinations: client::get(socket, "/destinations")?,
            latency: client::get(socket, "/latency")?,
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
