//! What an app is answered: a server's bytes, but for the identifier, the capitals of the question,
//! and TTLs that have passed.

use std::time::Duration;

use super::{
    query::Query,
    wire::{
        HEADER, Layout, NAME_ERROR, NO_ERROR, OPCODE, RECURSION_AVAILABLE, RECURSION_DESIRED,
        RESPONSE, RESPONSE_CODE, SERVER_FAILURE, TRUNCATED,
    },
};

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    bytes: Vec<u8>,
    /// `None` if it is malformed: passed on as it is, and never kept.
    layout: Option<Layout>,
}

impl Answer {
    pub fn new(bytes: Vec<u8>) -> Self {
        let layout = Layout::of(&bytes);
        Self { bytes, layout }
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        let offsets = self.layout.as_ref().map_or(0, |layout| layout.ttls.len());
        self.bytes.len() + offsets * size_of::<usize>()
    }

    /// How long it may be given to others that ask the same.
    pub fn lifetime(&self) -> Duration {
        let Some(layout) = &self.layout else {
            return Duration::ZERO;
        };
        if layout.is_sealed || self.bytes[2] & TRUNCATED != 0 {
            return Duration::ZERO;
        }
        let has_answers = self.bytes[6..8] != [0, 0];
        let seconds = match self.bytes[3] & RESPONSE_CODE {
            NO_ERROR if has_answers => layout.least_ttl,
            NO_ERROR | NAME_ERROR => layout.negative_ttl.min(layout.least_ttl),
            _ => None,
        };
        Duration::from_secs(seconds.unwrap_or(0).into())
    }

    /// The bytes for the app that asked `query`, after `age`.
    pub fn to(&self, query: &Query, age: Duration) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&query.id());
        // Of the same length: it is the same but for capitals.
        bytes[HEADER..HEADER + query.question().len()].copy_from_slice(query.question());
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        if seconds > 0
            && let Some(layout) = &self.layout
        {
            for &at in &layout.ttls {
                if let Some(Ok(ttl)) = bytes.get(at..at + 4).map(<[u8; 4]>::try_from) {
                    let left = u32::from_be_bytes(ttl).saturating_sub(seconds);
                    bytes[at..at + 4].copy_from_slice(&left.to_be_bytes());
                }
            }
        }
        bytes
    }

    /// The same for a datagram: what is too large is left out, and the app told to ask over TCP.
    pub fn to_datagram(&self, query: &Query, age: Duration) -> Vec<u8> {
        if self.bytes.len() <= query.limit() {
            return self.to(query, age);
        }
        let end = HEADER + query.question().len();
        let mut bytes = self.to(query, age);
        let opt = self.layout.as_ref().and_then(|layout| layout.opt.clone());
        let opt = opt.and_then(|range| bytes.get(range)).map(<[u8]>::to_vec);
        bytes.truncate(end);
        bytes[2] |= TRUNCATED;
        bytes[6..HEADER].fill(0);
        if let Some(opt) = opt
            && end + opt.len() <= query.limit()
        {
            bytes[11] = 1;
            bytes.extend(opt);
        }
        bytes
    }
}

/// The answer when the server has none: the app's resolver goes on to its next server.
pub fn server_failure(query: &Query) -> Vec<u8> {
    let asked = query.bytes();
    let mut bytes = asked[..HEADER + query.question().len()].to_vec();
    bytes[2] = RESPONSE | asked[2] & (OPCODE | RECURSION_DESIRED);
    bytes[3] = RECURSION_AVAILABLE | SERVER_FAILURE;
    bytes[6..HEADER].fill(0);
    bytes
}
