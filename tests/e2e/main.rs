//! End-to-end tests: one module per capability, one binary so that it links once.

mod capture;
mod connecting;
mod harness_itself;
mod peers;
