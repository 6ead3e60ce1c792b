//! Pure decisions: no I/O, no clock of their own (time is passed in), no tokio.

pub mod adaptive_concurrency;
pub mod adaptive_timeout;
pub mod advice;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod by_request;
pub mod client_hello;
pub mod critical;
pub mod deadline;
pub mod detection;
mod dns_cache;
pub mod ejection;
pub mod health_check;
pub mod hedge;
pub mod overload;
pub mod phi_accrual;
pub mod priority;
pub mod rate_limit;
pub mod response_histogram;
pub mod retry;
pub mod retry_budget;
pub mod sliding_window;
pub mod throttle;
pub mod trace_context;

pub use dns_cache::{DnsCache, DnsCacheStats};
