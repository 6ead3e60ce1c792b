//! End-to-end tests: one module per capability, one binary so that it links once.

mod harness_itself;
