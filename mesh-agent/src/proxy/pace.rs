//! How much a direction moves at once, and which way: little through this process, much through a
//! pipe inside the kernel, which saves both copies but takes a call more when there is nothing.

use tokio::net::TcpStream;

use crate::pods;

/// What a new connection's send buffer takes whole.
const FIRST: usize = 64 * 1024;

/// Less is not worth a call; about what a direction whose reader stalls holds.
const LEAST: usize = 16 * 1024;

/// What a pipe takes, and about what the kernel queues to one connection.
const MOST: usize = 1 << 20;

/// The pace of one direction.
#[derive(Debug)]
pub(super) struct Pace {
    /// How many bytes to take from the source at once.
    pub limit: usize,
    /// Whether to take them into a pipe.
    pub in_kernel: bool,
}

impl Pace {
    pub fn new() -> Self {
        Self {
            limit: FIRST,
            in_kernel: false,
        }
    }

    /// Learns from `count` bytes taken, and whether `target` left a rest of them.
    pub fn adapt(&mut self, count: usize, left_a_rest: bool, target: &TcpStream) {
        let is_much = count == self.limit || count >= FIRST;
        self.limit = if left_a_rest {
            LEAST
        } else if is_much {
            // Worth a call to ask only where much is moved.
            room(target)
        } else {
            FIRST
        };
        self.in_kernel = count >= if self.in_kernel { LEAST } else { FIRST };
    }
}

/// How much `target` will take. More would only wait.
fn room(target: &TcpStream) -> usize {
    pods::send_buffer(target).map_or(LEAST, |buffer| {
        (buffer.size.saturating_sub(buffer.queued) as usize).clamp(LEAST, MOST)
    })
}
