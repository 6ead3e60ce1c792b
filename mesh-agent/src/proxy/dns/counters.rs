//! What became of the queries of a pod.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// What became of the queries of a pod.
        #[derive(Debug, Default)]
        pub struct DnsCounters {
            $($(#[doc = $doc])+ pub(super) $field: AtomicU64,)+
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct DnsStatus {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl DnsCounters {
            /// Their values now.
            pub fn status(&self) -> DnsStatus {
                DnsStatus { $($field: self.$field.load(Ordering::Relaxed),)+ }
            }
        }

        impl DnsStatus {
            /// Every counter by its name, with what it counts.
            pub fn list(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), concat!($($doc),+).trim_ascii(), self.$field),)+]
            }
        }
    };
}

counters! {
    /// Queries that came from apps.
    queries,
    /// Those answered with addresses of the configuration.
    configured,
    /// Those answered from the cache.
    cached,
    /// Those that shared the answer to another's query under way.
    joined,
    /// Those that a server was asked.
    forwarded,
    /// Those that no server answered in time, answered SERVFAIL.
    failed,
    /// Those whose answer was asked for again over TCP, being truncated.
    retried_over_tcp,
    /// Messages that are no plain query, passed on as they are.
    opaque,
    /// Datagrams dropped: too many under way.
    dropped,
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
