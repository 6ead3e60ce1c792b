//! Moves bytes between the app and where it wanted to go.

mod connection;
mod copy;
mod given_up;
mod upstream;

pub use connection::{Connection, ConnectionStatus, Connections, serve};
