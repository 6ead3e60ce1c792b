//! End-to-end tests: one module per capability, one binary so that it links once.

mod bad_input;
mod capture;
mod connecting;
mod crowd;
mod ending;
mod harness_itself;
mod original_dst;
mod peers;
mod stage;
mod untouched;
mod volume;
