//! What a server does when more requests come than it can serve: some wait for a short time in a
//! [`Queue`], [`Admission`] refuses the less important ones before they get there, and the callers
//! remember what they were told ([`ToldLevel`]) and refuse them before they are even sent.

mod admission;
mod queue;
#[cfg(test)]
mod tests;
mod told;

pub use admission::{Admission, AdmissionLimits, AdmissionView};
pub use queue::{Lifo, Popped, Pushed, Queue, QueueLimits, Served, Ticket};
pub use told::{Answer, MOST_STANDS_FOR, ToldLevel};
