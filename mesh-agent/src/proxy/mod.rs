//! Moves bytes between the app and where it wanted to go.

mod accept;
mod capacity;
mod captured;
mod connection;
mod copy;
mod datagrams;
mod destinations;
mod detect;
mod detection_counters;
mod direction;
#[cfg(fuzzing)]
pub mod dns;
#[cfg(not(fuzzing))]
mod dns;
mod duplex;
mod given_up;
mod health_checks;
mod http;
mod idleness;
mod inbound;
mod last_words;
mod occasionally;
mod outbound;
mod overload;
mod pace;
mod pipe;
mod pod_proxy;
mod protection;
mod proxy_protocol;
mod scratch;
mod servers;
mod timer;
mod traffic;
mod upstream;
mod without_requests;
pub mod workers;

pub use accept::{Direction, serve};
pub use connection::{Accepted, Connection, ConnectionStatus, Connections};
pub use datagrams::{DatagramCounters, DatagramStatus, serve_datagrams};
pub use destinations::{Destination, Destinations, Endpoint};
pub use detection_counters::DetectionCounters;
pub use dns::{
    DESTINATION as DNS_DESTINATION, DnsCounters, DnsStatus, Hosts, Resolver, SharedHosts,
};
pub use health_checks::{HealthCheck, HealthChecks};
pub use http::Reason;
pub use overload::OverloadStatus;
pub use pod_proxy::{PodProxy, Shared};
pub use protection::{Protection, ProtectionPolicy, SharedRates};
pub use traffic::{Outcomes, Traffic, TrafficList};
