//! Hardware timestamps of real packets: run by `cargo xtask vm --card`, skipped elsewhere.

mod hardware;
mod raw;
