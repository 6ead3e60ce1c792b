//! The agent's DNS proxy: asks the very server that the app asked, keeps answers, and gives up in
//! time for the app to try its next server.

mod answer;
mod counters;
mod datagram;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod exchange_property;
mod hosts;
mod query;
mod resolver;
mod stamps;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

pub use counters::{DnsCounters, DnsStatus};
pub(super) use datagram::Queries;
pub use hosts::{Hosts, SharedHosts};
pub use resolver::Resolver;
pub use stamps::DESTINATION;
pub(super) use stream::serve_stream;
