//! mesh-agent: a service-mesh data plane without sidecars, one agent per node.
//!
//! The rooms, and who may know whom (dependencies point downward only):
//!
//! - [`cli`]: one file per verb
//! - [`check`]: is this machine able to run the agent?
//! - [`agent`]: what `run` does, from start to drain
//! - [`admin`]: what the running agent tells, over its socket and over HTTP
//! - [`pods`]: which pods there are, their network namespaces, sockets inside them
//! - [`proxy`]: moves bytes, answers DNS
//! - [`policy`]: decides, without I/O or a clock of its own
//! - [`latency`]: where time goes, by packet timestamps
//! - [`kernel`]: loads, attaches and updates the kernel half; the only room that knows aya
//! - [`config`]: the file

pub mod admin;
pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod kernel;
pub mod latency;
mod one_line;
pub mod pods;
pub mod policy;
pub mod proxy;
pub mod telemetry;
