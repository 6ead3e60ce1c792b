//! Sockets of a network namespace as `/proc` shows them.

use std::fs;

/// The state field of a listening socket.
const LISTEN: &str = "0A";

/// Whether anything listens on TCP `port` in the network namespace of process `pid`.
pub fn listens(pid: u32, port: u16) -> bool {
    let suffix = format!(":{port:04X}");
    for table in ["tcp", "tcp6"] {
        // A process that has just ended has no table; the caller finds out by itself.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/net/{table}")) else {
            continue;
        };
        let found = text.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            let state = fields.nth(1).unwrap_or_default();
            local.ends_with(&suffix) && state == LISTEN
        });
        if found {
            return true;
        }
    }
    false
}
