//! Harness of the end-to-end tests.
//!
//! A [`Node`] stands in for a Linux node: its pods are network namespaces joined by a bridge that
//! lives in a namespace of its own, its processes run in a cgroup of their own, and the real agent
//! binary runs against that cgroup. Nothing touches the network namespace or the root cgroup of the
//! machine, so tests run side by side and may use the same addresses.
//!
//! Every test is a [`scenario()`]: it is bounded in time, cleans up also after a panic, and prints the
//! agent's log when it fails.

mod agent;
mod cgroup;
mod config;
mod delayed_link;
mod maps;
mod mounts;
mod netns;
mod node;
mod pod;
mod proc_net;
mod process;
mod programs;
mod scenario;
mod sweep;
mod temporary;
#[allow(unsafe_code)] // the calls between fork and exec have no safe form
mod unsafe_pre_exec;
mod wait;

pub use agent::{Agent, binary as agent_binary};
pub use config::Config;
pub use delayed_link::{DelayedLink, End as LinkEnd};
pub use maps::{MapEntries, original_destination};
pub use nix::sys::signal::Signal;
pub use node::Node;
pub use pod::{Network, Pod};
pub use proc_net::listens as proc_net_listens;
pub use process::{Finished, Process, open_file_limit};
pub use programs::{program, python};
pub use scenario::{Scenario, say, scenario};
pub use sweep::leftovers as sweep_leftovers;
pub use temporary::{BindMount, PublicDir};
pub use wait::{wait_for, wait_until};
