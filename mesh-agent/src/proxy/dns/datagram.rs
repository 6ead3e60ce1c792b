//! Queries that come as datagrams.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use tokio::sync::Semaphore;

use super::{
    counters::add, exchange::From, query::Query, resolver::Transport, stamps::DnsStamps,
    wire::HEADER,
};
use crate::{
    latency::{Arrival, Stamps},
    proxy::{PodProxy, datagrams::Asked},
};

/// Queries of a pod and an address family under way at once, each with a socket of its own.
const MOST_UNDER_WAY: usize = 512;

/// Answers queries, each in a task of its own: one that waits for its server holds up no other.
#[derive(Debug)]
pub struct Queries {
    pod: Arc<PodProxy>,
    room: Arc<Semaphore>,
}

impl Queries {
    pub fn new(pod: Arc<PodProxy>) -> Self {
        Self {
            pod,
            room: Arc::new(Semaphore::new(MOST_UNDER_WAY)),
        }
    }

    /// Answers `message`, which was meant for `server` and `came` then, if that is known.
    pub fn serve(&self, asked: Asked, server: SocketAddr, message: &[u8], came: Option<Stamps>) {
        let came = Arrival::now(came);
        let counters = self.pod.resolver.counters();
        add(&counters.queries);
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return add(&counters.dropped);
        };
        let query = Query::parse(message, server);
        // What an answer is known by is missing.
        if message.len() < HEADER {
            return add(&counters.dropped);
        }
        let (book, sampler) = (&self.pod.latency, self.pod.resolver.sampler());
        let stamps = book
            .chooses(sampler, Instant::now())
            .then(|| DnsStamps::new(sampler.is_wanted()));
        let message = message.to_vec();
        let pod = Arc::clone(&self.pod);
        tokio::spawn(async move {
            let _permit = permit;
            let from = From {
                netns: &pod.netns,
                maps: &pod.maps,
                stamps: stamps.as_ref(),
            };
            let resolver = &pod.resolver;
            let answer = match &query {
                Some(query) => Ok(resolver
                    .answer(from, server, query, Transport::Datagram)
                    .await),
                None => resolver.pass_on(from, server, &message).await,
            };
            let answered = answer.and_then(|answer| asked.answer(&answer));
            if let (Some(stamps), Some(query)) = (&stamps, &query) {
                stamps.tell(&pod, server, query, came);
            }
            if let Err(error) = answered {
                tracing::debug!(
                    "pod at {}: DNS server {server}: {error}",
                    pod.netns.path().display()
                );
            }
        });
    }
}
