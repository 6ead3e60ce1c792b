//! Pure decisions: no I/O, no clock of their own (time is passed in), no tokio.

mod dns_cache;

pub use dns_cache::{DnsCache, DnsCacheStats};
