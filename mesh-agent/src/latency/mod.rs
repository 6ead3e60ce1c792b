//! Where the time of requests goes, by the timestamps that the kernel gives packets.
//!
//! Upwards: a socket that can be asked for stamps (`stream`, `socket`, `watched`, `room`, `writable`; `was_stamped`), what is known of one
//! connection (`leg`, `transmit_log`), the stages of one request (`stages`), which requests are measured
//! (`sampler`), and which in full (`whole_way`), whether the clock was set meanwhile (`clock_steps`), what is remembered of them (`book`,
//! `series`, `known_series`), and what threads are about to add to that (`account`).

mod account;
mod book;
mod cards;
mod clock;
mod clock_steps;
pub mod control_messages;
mod counts;
mod handshakes;
pub mod hardware;
mod known_series;
mod leg;
#[cfg(test)]
pub mod loopback;
mod nanos;
mod pace;
mod room;
mod round_trip;
mod sampler;
mod series;
mod socket;
mod stages;
mod stream;
mod transmit_log;
mod was_stamped;
mod watched;
pub mod whole_way;
mod writable;

pub use account::Account;
pub use book::{Book, Key, Outcome, Trace, TracePath};
pub use cards::use_cards;
pub use clock::Nanos;
pub use control_messages::Stamps;
pub use counts::BookCounts;
pub use known_series::Pair;
pub use leg::{Heard, Leg, Message, away};
pub use nanos::HardwareNanos;
pub use round_trip::{Answered, RoundTrip};
pub use sampler::{Rate, Sampler};
pub use series::{Figure, Figures, SHORTEST, Series};
pub use socket::{Asked, TcpInfo, drain, prepare_datagrams, receive, send, tcp_info};
pub use stages::{Arrival, Source, Stage, Stages, Stamp, Unclear, Waypoints};
pub use stream::StampedStream;
pub use transmit_log::{Counts, TransmitLog, Write};
pub use was_stamped::WasStamped;
