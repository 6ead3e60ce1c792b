//! Hardware timestamps of real packets: run by `cargo xtask vm --card`, skipped elsewhere.

// clippy.toml allows it in tests, of which it does not take helpers for a part.
#![allow(clippy::unwrap_used)]

mod hardware;
mod raw;
