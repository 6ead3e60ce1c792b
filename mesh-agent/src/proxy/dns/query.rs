//! What an app asks.

use std::net::{IpAddr, SocketAddr};

use super::wire::{
    AUTHENTIC_DATA, CHECKING_DISABLED, HEADER, Layout, OPCODE, PLAIN_LIMIT, RECURSION_DESIRED,
    RESPONSE, TRUNCATED, number,
};

/// Types that are answered with more than one message, or with none that may be kept: AXFR, IXFR
/// and the other questions about transactions (RFC 6895, 3.1).
const TRANSFERS: std::ops::RangeInclusive<u16> = 249..=254;

/// A query that the proxy understands: opcode QUERY, one question, nothing else but perhaps EDNS.
#[derive(Debug)]
pub struct Query {
    bytes: Vec<u8>,
    question_end: usize,
    limit: usize,
    /// What tells it from queries with other answers; `None` if the answer is for this one only.
    key: Option<Box<[u8]>>,
}

impl Query {
    /// `None` for everything else, which is to be passed on as it is.
    pub fn parse(bytes: &[u8], server: SocketAddr) -> Option<Self> {
        let layout = Layout::of(bytes)?;
        let records = (number(bytes, 6)?, number(bytes, 8)?, number(bytes, 10)?);
        let has_only_opt = records == (0, 0, u16::from(layout.opt.is_some()));
        let is_query = bytes[2] & (RESPONSE | OPCODE | TRUNCATED) == 0;
        let kind = number(bytes, layout.question_end - 4)?;
        if !has_only_opt || !is_query || layout.is_sealed || TRANSFERS.contains(&kind) {
            return None;
        }
        let edns = layout.edns(bytes);
        let is_shareable = edns.is_none_or(|edns| !edns.has_options);
        Some(Self {
            question_end: layout.question_end,
            limit: edns.map_or(PLAIN_LIMIT, |edns| edns.limit.max(PLAIN_LIMIT)),
            key: is_shareable.then(|| {
                key(
                    bytes,
                    layout.question_end,
                    edns.map(|edns| edns.version_and_flags),
                    server,
                )
            }),
            bytes: bytes.to_vec(),
        })
    }

    /// As the app sent it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The question, with the app's capitals.
    pub fn question(&self) -> &[u8] {
        &self.bytes[HEADER..self.question_end]
    }

    /// The name that is asked for, without its last dot.
    pub fn name(&self) -> String {
        let mut labels = Vec::new();
        let mut rest = self.question();
        while let Some((&length, after)) = rest.split_first()
            && length > 0
            && let Some((label, after)) = after.split_at_checked(length.into())
        {
            labels.push(String::from_utf8_lossy(label).into_owned());
            rest = after;
        }
        labels.join(".")
    }

    /// The identifier by which the app knows its answer.
    pub fn id(&self) -> [u8; 2] {
        [self.bytes[0], self.bytes[1]]
    }

    /// The largest answer that the app takes in a datagram.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What it has in common with queries that may share its answer.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Whether `answer` is one to this query, as far as its question tells. Capitals do not count
    /// here: they are the app's to check.
    pub fn is_answered_by(&self, answer: &[u8]) -> bool {
        answer.len() >= self.question_end
            && answer[2] & RESPONSE != 0
            && answer[4..6] == [0, 1]
            && answer[HEADER..self.question_end].eq_ignore_ascii_case(self.question())
    }
}

fn key(bytes: &[u8], question_end: usize, edns: Option<u32>, server: SocketAddr) -> Box<[u8]> {
    let mut key = Vec::with_capacity(question_end + 20);
    key.extend(bytes[HEADER..question_end].to_ascii_lowercase());
    key.push(bytes[2] & RECURSION_DESIRED | bytes[3] & (AUTHENTIC_DATA | CHECKING_DISABLED));
    if let Some(edns) = edns {
        key.extend(edns.to_be_bytes());
    }
    match server.ip() {
        IpAddr::V4(address) => key.extend(address.octets()),
        IpAddr::V6(address) => key.extend(address.octets()),
    }
    key.extend(server.port().to_be_bytes());
    key.into()
}
