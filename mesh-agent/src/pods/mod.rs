//! Which pods there are, their network namespaces, and the agent's sockets inside them.

mod enrolment;
mod error;
mod listener;
mod netns;
mod set;
mod socket_options;

pub use error::PodError;
pub use listener::ListenError;
pub use netns::{Netns, NetnsError, NetnsIdentity, remember_own};
pub use set::{PodReport, PodSet, PodState};
pub use socket_options::{
    SendBuffer, choose_port_at_connect, close_in_order, reset_on_close, send_buffer,
};
