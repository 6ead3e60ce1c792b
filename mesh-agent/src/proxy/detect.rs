//! Finds out what a client speaks, without taking its bytes from the socket.

use std::{io, os::fd::AsRawFd as _, time::Duration};

use nix::sys::socket::{MsgFlags, recv};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{detection_counters::DetectionCounters, scratch::with_scratch};
use crate::policy::{
    client_hello::{ServerName, server_name},
    detection::{More, Spoken, is_http2_server, spoken},
};

/// How long the rest of what tells protocols apart may take to come, after the first byte.
const PATIENCE: Duration = Duration::from_millis(100);
/// How much is looked at. A first line that is longer is taken for what it looks like, and the name in a
/// longer client hello is not found.
const MOST: usize = 8 << 10;

/// What a client's first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// What it speaks.
    pub spoken: Spoken,
    /// With TLS: the server that it names.
    pub server_name: Option<String>,
}

impl From<Spoken> for Detected {
    fn from(spoken: Spoken) -> Self {
        Self {
            spoken,
            server_name: None,
        }
    }
}

/// What the client speaks, as soon as it can be told. Waits for its first byte as long as it takes:
/// nobody waits for a client that says nothing.
pub async fn detect(client: &TcpStream, counters: &DetectionCounters) -> io::Result<Detected> {
    let mut seen = 0;
    if let Some(told) = more(client, &mut seen).await? {
        counters.client_told(told.spoken, Duration::ZERO);
        return Ok(told);
    }
    let first_byte = Instant::now();
    let deadline = first_byte + PATIENCE;
    loop {
        let told = match timeout_at(deadline, more(client, &mut seen)).await {
            Ok(told) => told?,
            Err(_late) => {
                counters.came_late();
                peek(client, &mut seen, More::Late)?.or_else(|| Some(Spoken::Tcp.into()))
            }
        };
        if let Some(told) = told {
            counters.client_told(told.spoken, first_byte.elapsed());
            return Ok(told);
        }
    }
}

/// Waits for more than the `seen` bytes; `None` if they do not tell yet.
async fn more(client: &TcpStream, seen: &mut usize) -> io::Result<Option<Detected>> {
    loop {
        let ready = client.ready(Interest::READABLE).await?;
        let more = if ready.is_read_closed() {
            More::Late
        } else {
            More::Expected
        };
        let before = *seen;
        let looked = client.try_io(Interest::READABLE, || {
            let told = peek(client, seen, more)?;
            // Says that this was all for now: the next bytes make the socket ready again.
            if told.is_none() && *seen == before {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(told)
        });
        match looked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            looked => return looked,
        }
    }
}

fn peek(client: &TcpStream, seen: &mut usize, more: More) -> io::Result<Option<Detected>> {
    with_scratch(|scratch| {
        let most = scratch.len().min(MOST);
        let buffer = &mut scratch[..most];
        *seen = recv(client.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?;
        let more = if *seen == most { More::Late } else { more };
        Ok(detected(&buffer[..*seen], more))
    })
}

fn detected(bytes: &[u8], more: More) -> Option<Detected> {
    let spoken = spoken(bytes, more)?;
    if spoken != Spoken::Tls {
        return Some(spoken.into());
    }
    let server_name = match server_name(bytes) {
        ServerName::Incomplete if more == More::Expected => return None,
        ServerName::Incomplete | ServerName::Absent => None,
        ServerName::Name(name) => Some(name),
    };
    Some(Detected {
        spoken,
        server_name,
    })
}

/// Whether what a server said first is no reason to stop waiting for its client.
pub fn is_waiting_for_http2(server: &TcpStream) -> bool {
    let mut first = [0; 9];
    recv(server.as_raw_fd(), &mut first, MsgFlags::MSG_PEEK)
        .is_ok_and(|length| is_http2_server(&first[..length]))
}
