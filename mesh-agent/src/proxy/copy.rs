//! Copies bytes both ways between two TCP streams: with back-pressure, half-close passed on, and a
//! reset on either side passed on as a reset.

use std::{
    cell::RefCell,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// Measured with `cargo xtask bench --only bulk`: smaller costs throughput, larger gains nothing.
const BUFFER_SIZE: usize = 128 * 1024;

/// Idle buffers kept per thread.
const POOL_SIZE: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer from this thread's pool. A connection holds one only while it has bytes in hand: idle
/// connections cost no buffer.
struct Buffer(Option<Box<[u8]>>);

impl Buffer {
    fn take() -> Self {
        let pooled = POOL.with_borrow_mut(Vec::pop);
        Self(Some(
            pooled.unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice()),
        ))
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < POOL_SIZE {
                    pool.push(buffer);
                }
            });
        }
    }
}

/// Copies until both directions have ended. An error means that one side is gone: the caller must
/// reset the other.
pub async fn copy_both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    sent: &AtomicU64,
    received: &AtomicU64,
) -> io::Result<()> {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let upload = copy(client_read, server_write, sent);
    let download = copy(server_read, client_write, received);
    tokio::pin!(upload, download);
    // The end of one direction does not end the other. But nobody reads the ended side any more, so
    // nobody would notice it being reset.
    tokio::select! {
        ended = &mut upload => {
            let client_read = ended?;
            tokio::select! {
                ended = &mut download => ended.map(drop),
                error = reset_by_peer(&client_read) => Err(error),
            }
        }
        ended = &mut download => {
            let server_read = ended?;
            tokio::select! {
                ended = &mut upload => ended.map(drop),
                error = reset_by_peer(&server_read) => Err(error),
            }
        }
    }
}

/// Copies one direction, passes its end on and gives the source back.
async fn copy<'a>(
    mut source: ReadHalf<'a>,
    mut target: WriteHalf<'_>,
    total: &AtomicU64,
) -> io::Result<ReadHalf<'a>> {
    loop {
        source.readable().await?;
        let mut buffer = Buffer::take();
        let count = source.read(buffer.bytes()).await?;
        if count == 0 {
            break;
        }
        target.write_all(&buffer.bytes()[..count]).await?;
        total.fetch_add(count as u64, Ordering::Relaxed);
    }
    // A peer that is gone already shows when the other direction fails.
    let _peer_gone = target.shutdown().await;
    Ok(source)
}

/// Resolves when the peer has reset the connection.
async fn reset_by_peer(stream: &ReadHalf<'_>) -> io::Error {
    match stream.ready(Interest::ERROR).await {
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => error,
    }
}
