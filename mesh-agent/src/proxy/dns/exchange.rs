//! Asks a server, from inside the pod.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{TcpStream, UdpSocket},
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use super::{query::Query, stamps::DnsStamps, wire::TRUNCATED};
use crate::{
    kernel::Maps,
    pods::Netns,
    proxy::{
        scratch::with_scratch,
        upstream::{self, SeenAs},
    },
};

/// Resolvers give up on a server after 5 s if nothing else is configured (resolv.conf(5), musl): the
/// app must hear before that.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// How long to wait before asking again, each time; datagrams get lost.
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Where servers are asked from.
#[derive(Clone, Copy, Debug)]
pub struct From<'a> {
    pub netns: &'a Netns,
    pub maps: &'a Maps,
    /// If it is measured.
    pub stamps: Option<&'a DnsStamps>,
}

impl From<'_> {
    /// A datagram socket of the agent's own, connected to `server`: the kernel drops what others
    /// send to it, and picks a random port.
    pub fn datagram_socket(self, server: SocketAddr) -> io::Result<UdpSocket> {
        upstream::datagrams(self.netns, self.maps, server)
    }

    pub async fn stream(self, server: SocketAddr) -> io::Result<TcpStream> {
        upstream::connect(self.netns, self.maps, server, SeenAs::Pod(None)).await
    }
}

/// Asks `server`, again whenever `again` says that the app did. The answer may be truncated.
pub async fn ask(
    from: From<'_>,
    server: SocketAddr,
    query: &Query,
    again: &Notify,
) -> io::Result<Vec<u8>> {
    let socket = from.datagram_socket(server)?;
    let stamps = from.stamps;
    let mut bytes = query.bytes().to_vec();
    // The app's own may be easy to guess.
    let id = random_id();
    bytes[..2].copy_from_slice(&id);
    send(&socket, &bytes, stamps).await?;
    let started = Instant::now();
    let mut ask_again = ASK_AGAIN.into_iter();
    let mut next = ask_again.next();
    let deadline = started + PATIENCE;
    loop {
        let wake = next.map_or(deadline, |delay| started + delay);
        tokio::select! {
            received = receive(&socket, stamps) => {
                let answer = received?;
                if answer.get(..2) == Some(&id) && query.is_answered_by(&answer) {
                    return Ok(answer);
                }
            }
            () = again.notified() => {
                send(&socket, &bytes, stamps).await?;
            }
            () = sleep_until(wake) => {
                if wake == deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                next = ask_again.next();
                send(&socket, &bytes, stamps).await?;
            }
        }
    }
}

/// Whether the server left something out.
pub fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Asks over TCP (RFC 7766).
pub async fn ask_over_tcp(
    from: From<'_>,
    server: SocketAddr,
    query: &Query,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let asking = async {
        let mut stream = from.stream(server).await?;
        write_message(&mut stream, query.bytes()).await?;
        let answer = read_message(&mut stream).await?;
        if answer.get(..2) == Some(&query.id()) && query.is_answered_by(&answer) {
            return Ok(answer);
        }
        Err(io::ErrorKind::InvalidData.into())
    };
    timeout_at(deadline, asking).await?
}

/// Passes a message on that is no plain query, and back the first answer that may be one.
pub async fn pass_on(from: From<'_>, server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let socket = from.datagram_socket(server)?;
    socket.send(message).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = timeout_at(deadline, receive(&socket, None)).await??;
        if answer.get(..2) == message.get(..2) {
            return Ok(answer);
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], stamps: Option<&DnsStamps>) -> io::Result<()> {
    if let Some(stamps) = stamps {
        socket.writable().await?;
        if stamps.send(socket, bytes).is_ok() {
            return Ok(());
        }
    }
    socket.send(bytes).await.map(drop)
}

/// Receives a datagram, or hears that nobody takes ours: such an error alone makes no socket readable.
async fn receive(socket: &UdpSocket, stamps: Option<&DnsStamps>) -> io::Result<Vec<u8>> {
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            // Said from inside `try_io`, it clears the readiness.
            let _cleared = socket.try_io(Interest::ERROR, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
        let received: io::Result<_> = match stamps {
            Some(stamps) => stamps.try_receive(socket),
            None => with_scratch(|scratch| {
                let count = socket.try_recv(scratch)?;
                Ok(scratch[..count].to_vec())
            }),
        };
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Reads a message with its length before it (RFC 1035, 4.2.2).
pub async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message with its length before it.
pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}

fn random_id() -> [u8; 2] {
    rand::random()
}
