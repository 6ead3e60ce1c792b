//! Pure decisions: no I/O, no clock of their own (time is passed in), no tokio.

pub mod adaptive_timeout;
pub mod backoff;
pub mod balance;
pub mod client_hello;
pub mod deadline;
pub mod detection;
mod dns_cache;
pub mod ejection;
pub mod health_check;
pub mod hedge;
pub mod phi_accrual;
pub mod priority;
pub mod rate_limit;
pub mod retry;
pub mod retry_budget;
pub mod retry_mark;
pub mod sliding_window;
pub mod trace_context;

pub use dns_cache::{DnsCache, DnsCacheStats};
