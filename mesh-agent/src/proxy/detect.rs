//! Finds out what a client speaks, without taking its bytes from the socket.

use std::{io, os::fd::AsRawFd as _, time::Duration};

use nix::sys::socket::{MsgFlags, recv};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::scratch::with_scratch;
use crate::policy::detection::{More, Spoken, is_http2_server, spoken};

/// How long the rest of what tells protocols apart may take to come, after the first byte.
const PATIENCE: Duration = Duration::from_millis(100);
/// How much is looked at. A first line that is longer is taken for what it looks like.
const MOST: usize = 8 << 10;

/// What the client speaks, as soon as it can be told. Waits for its first byte as long as it takes:
/// nobody waits for a client that says nothing.
pub async fn detect(client: &TcpStream) -> io::Result<Spoken> {
    let mut seen = 0;
    if let Some(told) = more(client, &mut seen).await? {
        return Ok(told);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = match timeout_at(deadline, more(client, &mut seen)).await {
            Ok(told) => told?,
            Err(_late) => peek(client, &mut seen, More::Late)?.or(Some(Spoken::Tcp)),
        };
        if let Some(told) = told {
            return Ok(told);
        }
    }
}

/// Waits for more than the `seen` bytes; `None` if they do not tell yet.
async fn more(client: &TcpStream, seen: &mut usize) -> io::Result<Option<Spoken>> {
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

fn peek(client: &TcpStream, seen: &mut usize, more: More) -> io::Result<Option<Spoken>> {
    with_scratch(|scratch| {
        let most = scratch.len().min(MOST);
        let buffer = &mut scratch[..most];
        *seen = recv(client.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?;
        let more = if *seen == most { More::Late } else { more };
        Ok(spoken(&buffer[..*seen], more))
    })
}

/// Whether what a server said first is no reason to stop waiting for its client.
pub fn is_waiting_for_http2(server: &TcpStream) -> bool {
    let mut first = [0; 9];
    recv(server.as_raw_fd(), &mut first, MsgFlags::MSG_PEEK)
        .is_ok_and(|length| is_http2_server(&first[..length]))
}
