//! One client's connection.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::server::{Builder, Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{CONNECTION_WINDOW, Keepalive, STREAM_WINDOW, listened_to, stream};
use crate::proxy::{
    connection::Moved,
    http::{
        batched_io::{PREFACE, batched},
        framing::LARGEST_HEAD,
        joined_frames,
        session::Session,
    },
};

/// Most requests of one client at once.
const MOST_STREAMS: u32 = 256;
/// See [`Keepalive`].
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Serves HTTP/2 until the client or the agent ends the connection. `draining` completes when no more requests are
/// to be taken.
pub async fn serve_http2(
    client: TcpStream,
    session: Session,
    moved: Arc<Moved>,
    draining: impl Future<Output = ()>,
) -> io::Result<()> {
    let (session, stamps) = session.on_streams();
    let session = Arc::new(session);
    let (io, flusher) = batched(client, Some(moved), PREFACE, stamps);
    let (io, heard) = listened_to(io);
    let mut handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(joined_frames::LONGEST)
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LARGEST_HEAD as u32)
        .handshake(io);
    let mut connection = poll_fn(|context| {
        let begun = Pin::new(&mut handshake).poll(context);
        flusher.flush(context);
        begun
    })
    .await
    .map_err(io::Error::other)?;
    let mut keepalive = Keepalive::new(connection.ping_pong(), heard, KEEPALIVE);
    let mut draining = pin!(draining);
    let mut is_draining = false;
    poll_fn(|context| {
        if !is_draining && draining.as_mut().poll(context).is_ready() {
            is_draining = true;
            connection.graceful_shutdown();
        }
        let ended = poll_streams(&mut connection, &session, context);
        flusher.flush(context);
        // Last: what came just now is a sign of life.
        if ended.is_pending() && keepalive.poll(|| false, context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ended
    })
    .await
}

/// Reads and writes what there is. Each request has a task of its own.
fn poll_streams<T: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<T, Bytes>,
    session: &Arc<Session>,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        match ready!(connection.poll_accept(context)) {
            Some(Ok((request, answer))) => {
                // The runtime moves a task's future several times, and this is 10 KiB.
                tokio::spawn(Box::pin(stream::serve(
                    Arc::clone(session),
                    request,
                    answer,
                )));
            }
            Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            None => return Poll::Ready(Ok(())),
        }
    }
}
