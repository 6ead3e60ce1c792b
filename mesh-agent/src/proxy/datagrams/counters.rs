//! What became of the datagrams of a pod that are no DNS queries.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of them.
#[derive(Debug, Default)]
pub struct DatagramCounters {
    pub(super) flows: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatagramStatus {
    /// Flows since the pod was enrolled.
    pub flows: u64,
    /// Flows that are not idle for too long.
    pub open: u64,
    /// Datagrams from apps to servers.
    pub sent: u64,
    /// Datagrams from servers to apps.
    pub received: u64,
    /// Datagrams dropped: too many flows, or no room to send.
    pub dropped: u64,
}

impl DatagramCounters {
    /// Their values now.
    pub fn status(&self) -> DatagramStatus {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DatagramStatus {
            flows: value(&self.flows),
            open: value(&self.open),
            sent: value(&self.sent),
            received: value(&self.received),
            dropped: value(&self.dropped),
        }
    }
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
