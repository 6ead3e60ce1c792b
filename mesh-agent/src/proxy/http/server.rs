//! Serves the requests of one client's HTTP/1 connection.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::{
    counted_io::CountedIo,
    exchange::{Tunnel, exchange},
    framing::{LARGEST_HEAD, MOST_HEADERS},
    half_close::Busy,
    request_body::RequestBody,
    session::Session,
    strict_io::StrictIo,
};
use crate::{
    latency::StampedStream,
    pods,
    proxy::connection::{self, Moved},
};

/// How long a client may take until its first or next request.
const NEXT_REQUEST: Duration = Duration::from_mins(5);
/// How long a client that is still sending is listened to after the last answer: closing at once would
/// take that answer from it.
const LINGER: Duration = Duration::from_secs(1);

/// Serves HTTP/1 until the client or the agent ends the connection. `draining` completes when no more
/// requests are to be taken.
pub async fn serve_http1(
    client: TcpStream,
    session: Session,
    moved: Arc<Moved>,
    draining: impl Future<Output = ()>,
) -> io::Result<()> {
    let (session, receipts) = session.in_order();
    let tunnel: Mutex<Option<Tunnel>> = Mutex::default();
    let refusal = Arc::clone(&session.refusal);
    let busy = Busy::default();
    let (client, read, ended) = {
        let (session, refused, tunnel) = (&session, &refusal, &tunnel);
        let service = service_fn(|request: Request<Incoming>| {
            // At once: the library looks for the client's end before it polls what follows.
            let underway = busy.begin();
            Box::pin(async move {
                if let Some(reason) = refused.stands_for(request.uri().path()) {
                    let mut answer = session.refuse(&request, reason);
                    answer.body_mut().keep(underway);
                    return Ok(answer);
                }
                let (mut response, joined) =
                    exchange(session, request.map(RequestBody::Http1), None).await;
                response.body_mut().keep(underway);
                if joined.is_some() {
                    *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = joined;
                }
                Ok::<_, Infallible>(response)
            })
        });
        let client = StampedStream::new(client, Arc::clone(receipts.leg()));
        let io = CountedIo::new(client, Arc::clone(&moved));
        let io = TokioIo::new(StrictIo::new(
            io,
            Arc::clone(&refusal),
            Arc::clone(&session.interim),
            busy.clone(),
            receipts,
        ));
        let mut connection = http1::Builder::new()
            // The connection tells who has only closed their half.
            .half_close(false)
            .preserve_header_case(true)
            .auto_date_header(false)
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_REQUEST)
            .max_buf_size(2 * LARGEST_HEAD)
            .max_headers(MOST_HEADERS + 1)
            .serve_connection(io, service);
        let mut draining = pin!(draining);
        let mut is_draining = false;
        let ended = poll_fn(|context| {
            if !is_draining && draining.as_mut().poll(context).is_ready() {
                is_draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(context)
        })
        .await;
        let parts = connection.into_parts();
        let (client, left) = parts.io.into_inner().into_parts();
        let read = [parts.read_buf, left].concat();
        (client, read, ended)
    };
    let tunnel = tunnel.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (ended, tunnel) {
        (Ok(()), Some(Tunnel::Connection { server, said, held })) => {
            let joined = join(client, &read, server, &said, &moved).await;
            drop(held);
            joined
        }
        (Ok(()), _) => close(client).await,
        (Err(error), _) if error.is_parse() || error.is_timeout() => close(client).await,
        // Dropped: a reset, as the server's end was one, or the client's.
        (Err(error), _) => Err(io::Error::other(error)),
    }
}

/// Joins a client and a server that switched protocols; both may have said something already.
async fn join(
    mut client: StampedStream,
    read: &[u8],
    mut server: StampedStream,
    said: &[u8],
    moved: &Moved,
) -> io::Result<()> {
    server.write_all(read).await?;
    client.write_all(said).await?;
    let (client, server) = (client.into_was_stamped()?, server.into_was_stamped()?);
    connection::join(&client, &server, moved).await
}

/// Ends a connection whose last answer is written, so that the client can read it to its end.
async fn close(mut client: StampedStream) -> io::Result<()> {
    client.shutdown().await?;
    let client = client.into_stream()?;
    let _late = timeout(LINGER, discard_until_end(&client)).await;
    pods::close_in_order(&client)
}

async fn discard_until_end(client: &TcpStream) {
    loop {
        if client.readable().await.is_err() {
            return;
        }
        let mut nothing = [0; 4096];
        match client.try_read(&mut nothing) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}
