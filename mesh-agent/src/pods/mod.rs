//! Which pods there are, their network namespaces, and the agent's sockets inside them.

mod change;
mod enrolment;
mod error;
mod exclusions;
mod inbound;
mod kernel_pod;
mod listener;
mod listening;
mod loopback;
mod member;
mod netns;
mod serving;
mod set;
mod socket_options;
mod token_route;

pub use error::PodError;
pub use listener::ListenError;
pub use loopback::LoopbackFault;
pub use member::{PodReport, PodState};
pub use netns::{Netns, NetnsError, NetnsIdentity, remember_own};
pub use set::PodSet;
pub use socket_options::{
    SendBuffer, choose_port_at_connect, close_in_order, reset_on_close, send_buffer, watched,
};
