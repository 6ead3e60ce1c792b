//! Answers the queries of a pod.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use super::{
    answer::{Answer, server_failure},
    counters::{DnsCounters, add},
    exchange::{self, From, ask, ask_over_tcp, is_truncated},
    hosts::SharedHosts,
    query::Query,
};
use crate::{
    latency::Sampler,
    policy::{DnsCache, DnsCacheStats},
};

/// Bytes of answers kept for a pod.
const CACHE_SIZE: usize = 1 << 20;

/// How an app asks, which decides how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Datagram,
    Stream,
}

/// Answers the queries of one pod.
#[derive(Debug)]
pub struct Resolver {
    hosts: SharedHosts,
    state: Mutex<State>,
    counters: DnsCounters,
    sampler: Sampler,
}

#[derive(Debug)]
struct State {
    cache: DnsCache<Arc<Answer>>,
    under_way: HashMap<(Transport, Box<[u8]>), UnderWay>,
}

/// A query that a server was asked, and who waits for the answer.
#[derive(Clone, Debug)]
struct UnderWay {
    answer: watch::Receiver<Option<Arc<Answer>>>,
    again: Arc<Notify>,
}

impl Resolver {
    /// A resolver that knows the names of the configuration.
    pub fn new(hosts: SharedHosts) -> Self {
        Self {
            hosts,
            state: Mutex::new(State {
                cache: DnsCache::new(CACHE_SIZE),
                under_way: HashMap::new(),
            }),
            counters: DnsCounters::default(),
            sampler: Sampler::default(),
        }
    }

    /// Decides which of the pod's queries are measured.
    pub const fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// What became of the pod's queries.
    pub fn counters(&self) -> &DnsCounters {
        &self.counters
    }

    /// What is kept.
    pub fn cache(&self) -> DnsCacheStats {
        self.lock().cache.stats()
    }

    /// The answer to `query`, which was meant for `server`.
    pub(super) async fn answer(
        &self,
        from: From<'_>,
        server: SocketAddr,
        query: &Query,
        transport: Transport,
    ) -> Vec<u8> {
        if let Some(answer) = self.hosts.get().answer(query) {
            add(&self.counters.configured);
            let answer = Answer::new(answer);
            return match transport {
                Transport::Datagram => answer.to_datagram(query, Duration::ZERO),
                Transport::Stream => answer.to(query, Duration::ZERO),
            };
        }
        let (answer, age) = match self.find(query, transport) {
            Found::Kept(answer, age) => {
                add(&self.counters.cached);
                (Some(answer), age)
            }
            Found::UnderWay(under_way) => {
                add(&self.counters.joined);
                (joined(under_way).await, Duration::ZERO)
            }
            Found::Nothing(asking) => {
                let again = asking.as_ref().map(|asking| Arc::clone(&asking.again));
                let again = again.unwrap_or_default();
                let answer = self.ask(from, server, query, transport, &again).await;
                let answer = answer.ok().map(Arc::new);
                if let Some(asking) = asking {
                    asking.tell(answer.clone());
                }
                (answer, Duration::ZERO)
            }
        };
        match (answer, transport) {
            (Some(answer), Transport::Datagram) => answer.to_datagram(query, age),
            (Some(answer), Transport::Stream) => answer.to(query, age),
            (None, _) => {
                add(&self.counters.failed);
                server_failure(query)
            }
        }
    }

    fn find(&self, query: &Query, transport: Transport) -> Found<'_> {
        let Some(key) = query.key() else {
            return Found::Nothing(None);
        };
        let mut state = self.lock();
        if let Some((answer, age)) = state.cache.get(key, Instant::now()) {
            return Found::Kept(answer, age);
        }
        let place = (transport, Box::from(key));
        if let Some(under_way) = state.under_way.get(&place) {
            return Found::UnderWay(under_way.clone());
        }
        let (tell, answer) = watch::channel(None);
        let again = Arc::new(Notify::new());
        let under_way = UnderWay {
            answer,
            again: Arc::clone(&again),
        };
        state.under_way.insert(place.clone(), under_way);
        Found::Nothing(Some(Asking {
            resolver: self,
            place,
            tell,
            again,
        }))
    }

    async fn ask(
        &self,
        from: From<'_>,
        server: SocketAddr,
        query: &Query,
        transport: Transport,
        again: &Notify,
    ) -> io::Result<Answer> {
        add(&self.counters.forwarded);
        if transport == Transport::Stream {
            return ask_over_tcp(from, server, query).await.map(Answer::new);
        }
        let answer = ask(from, server, query, again).await?;
        if !is_truncated(&answer) {
            return Ok(Answer::new(answer));
        }
        add(&self.counters.retried_over_tcp);
        if let Some(stamps) = from.stamps {
            stamps.discard();
        }
        let whole = ask_over_tcp(from, server, query).await;
        Ok(Answer::new(whole.unwrap_or(answer)))
    }

    /// A message that is no plain query.
    pub(super) async fn pass_on(
        &self,
        from: From<'_>,
        server: SocketAddr,
        message: &[u8],
    ) -> io::Result<Vec<u8>> {
        add(&self.counters.opaque);
        exchange::pass_on(from, server, message).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Found<'a> {
    Kept(Arc<Answer>, Duration),
    UnderWay(UnderWay),
    /// To be asked for; with those that may come to wait for the answer, if it can be shared.
    Nothing(Option<Asking<'a>>),
}

/// Waits for the answer to another's query. Somebody who asks a second time may have lost patience.
async fn joined(mut under_way: UnderWay) -> Option<Arc<Answer>> {
    under_way.again.notify_one();
    let answer = under_way.answer.wait_for(Option::is_some).await.ok()?;
    answer.clone()
}

/// The place in the list of queries under way; left however the asking ends.
struct Asking<'a> {
    resolver: &'a Resolver,
    place: (Transport, Box<[u8]>),
    tell: watch::Sender<Option<Arc<Answer>>>,
    again: Arc<Notify>,
}

impl Asking<'_> {
    fn tell(self, answer: Option<Arc<Answer>>) {
        if let Some(answer) = &answer {
            self.keep(answer);
        }
        self.tell.send_replace(answer);
    }

    fn keep(&self, answer: &Arc<Answer>) {
        let lifetime = answer.lifetime();
        if !lifetime.is_zero() {
            self.resolver.lock().cache.insert(
                self.place.1.clone(),
                Arc::clone(answer),
                answer.size(),
                lifetime,
                Instant::now(),
            );
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.resolver.lock().under_way.remove(&self.place);
    }
}
