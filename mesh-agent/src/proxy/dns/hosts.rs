//! Names that the configuration gives addresses to.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use hickory_proto::{
    op::{Edns, Message, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};

use super::query::Query;
use crate::config::Destination;

/// How long apps may keep an address that the configuration may change any moment, in seconds.
const TTL: u32 = 5;

/// What EDNS answers say this end takes.
const LIMIT: u16 = 1232;

/// The names of one configuration.
#[derive(Debug, Default)]
pub struct Hosts {
    exact: HashMap<Box<str>, Host>,
    /// By what follows `*.`.
    wildcards: HashMap<Box<str>, Host>,
}

#[derive(Debug)]
struct Host {
    addresses: Arc<[IpAddr]>,
    queries: AtomicU64,
}

/// The names of the running configuration, the same for all pods.
#[derive(Clone, Debug, Default)]
pub struct SharedHosts(Arc<RwLock<Arc<Hosts>>>);

impl SharedHosts {
    /// These are the names from now on.
    pub fn set(&self, hosts: Hosts) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hosts);
    }

    /// The names now.
    pub fn get(&self) -> Arc<Hosts> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hosts {
    /// The names of these destinations.
    pub fn of(destinations: &[Destination]) -> Self {
        let mut hosts = Self::default();
        for destination in destinations {
            if destination.addresses.is_empty() {
                continue;
            }
            let addresses: Arc<[IpAddr]> = destination.addresses.as_slice().into();
            for name in &destination.hosts {
                let name = name.to_ascii_lowercase();
                let host = Host {
                    addresses: Arc::clone(&addresses),
                    queries: AtomicU64::new(0),
                };
                match name.strip_prefix("*.") {
                    Some(parent) => hosts.wildcards.insert(parent.into(), host),
                    None => hosts.exact.insert(name.into(), host),
                };
            }
        }
        hosts
    }

    /// How often each name was asked for, as the configuration spells it.
    pub fn queries(&self) -> Vec<(String, u64)> {
        let count = |host: &Host| host.queries.load(Ordering::Relaxed);
        let exact = self.exact.iter();
        let exact = exact.map(|(name, host)| (name.to_string(), count(host)));
        let wildcards = self.wildcards.iter();
        let wildcards = wildcards.map(|(name, host)| (format!("*.{name}"), count(host)));
        let mut queries: Vec<_> = exact.chain(wildcards).collect();
        queries.sort();
        queries
    }

    /// The answer to a query for one of the names; `None` for every other. A name has no records
    /// but addresses.
    pub(super) fn answer(&self, query: &Query) -> Option<Vec<u8>> {
        let host = self.find(query.question())?;
        let message = Message::from_vec(query.bytes()).ok()?;
        let question = message.queries.first()?;
        if question.query_class() != DNSClass::IN {
            return None;
        }
        host.queries.fetch_add(1, Ordering::Relaxed);
        let (name, kind) = (question.name().clone(), question.query_type());
        let records = host.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) => has_type(kind, RecordType::A).then_some(RData::A(A(*address))),
            IpAddr::V6(address) => {
                has_type(kind, RecordType::AAAA).then_some(RData::AAAA(AAAA(*address)))
            }
        });
        let records: Vec<_> = records
            .map(|data| Record::from_rdata(name.clone(), TTL, data))
            .collect();
        let has_edns = message.edns.is_some();
        let mut answer = message.into_response();
        answer.metadata.response_code = ResponseCode::NoError;
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = true;
        answer.add_answers(records);
        answer.edns = None;
        if has_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(LIMIT);
            answer.set_edns(edns);
        }
        answer.to_vec().ok()
    }

    fn find(&self, question: &[u8]) -> Option<&Host> {
        if self.exact.is_empty() && self.wildcards.is_empty() {
            return None;
        }
        let name = text_of(question)?;
        if let Some(host) = self.exact.get(name.as_str()) {
            return Some(host);
        }
        // The nearest parent counts (RFC 4592, 3.3.1).
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(host) = self.wildcards.get(parent) {
                return Some(host);
            }
            rest = parent;
        }
        None
    }
}

fn has_type(asked: RecordType, kind: RecordType) -> bool {
    asked == kind || asked == RecordType::ANY
}

/// The name of a question in lower case; `None` if it has labels that no host name has.
fn text_of(question: &[u8]) -> Option<String> {
    let mut name = String::new();
    let mut at = 0;
    while let length @ 1.. = usize::from(*question.get(at)?) {
        let label = str::from_utf8(question.get(at + 1..at + 1 + length)?).ok()?;
        if label.contains('.') {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.chars().map(|letter| letter.to_ascii_lowercase()));
        at += 1 + length;
    }
    (!name.is_empty()).then_some(name)
}
