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

/// Half of the bulk throughput's cost is per call: with 64 KiB a gigabyte takes some 10% more CPU
/// time than with this (`cargo xtask bench --only bulk`). A direction whose reader stalls holds one.
const BUFFER_SIZE: usize = 256 * 1024;

/// Idle buffers kept per thread.
const POOL_SIZE: usize = 4;

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

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering, time::Duration};

    use socket2::SockRef;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    use super::{AtomicU64, copy_both_ways, io};

    const LONG_ENOUGH: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// The app's end, the server's end, and what goes on in between.
    async fn joined() -> (TcpStream, TcpStream, JoinHandle<(io::Result<()>, u64, u64)>) {
        let (app, mut client) = pair().await;
        let (mut server, far_end) = pair().await;
        let copying = tokio::spawn(async move {
            let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
            let ended = copy_both_ways(&mut client, &mut server, &sent, &received).await;
            (
                ended,
                sent.load(Ordering::Relaxed),
                received.load(Ordering::Relaxed),
            )
        });
        (app, far_end, copying)
    }

    fn reset(stream: TcpStream) {
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(stream);
    }

    #[tokio::test]
    async fn bytes_arrive_both_ways_and_are_counted() {
        let (mut app, mut server, copying) = joined().await;
        let upload: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let expected = upload.clone();
        let (mut app_read, mut app_write) = app.split();
        let sending = async {
            app_write.write_all(&upload).await.unwrap();
            app_write.shutdown().await.unwrap();
        };
        let serving = async {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            assert!(got == expected);
            server.write_all(b"done").await.unwrap();
            drop(server);
        };
        let mut answer = Vec::new();
        let reading = app_read.read_to_end(&mut answer);
        let ((), (), read) = tokio::join!(sending, serving, reading);
        assert_eq!(read.unwrap(), 4);
        let (ended, sent, received) = copying.await.unwrap();
        assert!(ended.is_ok());
        assert_eq!((sent, received), (3_000_000, 4));
    }

    #[tokio::test]
    async fn a_half_closed_client_still_reads() {
        let (mut app, mut server, _copying) = joined().await;
        app.shutdown().await.unwrap();
        let mut nothing = Vec::new();
        server.read_to_end(&mut nothing).await.unwrap();
        for _ in 0..3 {
            server.write_all(b"still here").await.unwrap();
            let mut answer = [0; 10];
            app.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"still here");
        }
    }

    #[tokio::test]
    async fn a_reset_ends_the_copying_with_an_error() {
        let (app, _server, copying) = joined().await;
        reset(app);
        let (ended, _, _) = tokio::time::timeout(LONG_ENOUGH, copying)
            .await
            .unwrap()
            .unwrap();
        assert!(ended.is_err());
    }

    #[tokio::test]
    async fn a_reset_after_half_close_is_noticed_while_the_server_is_silent() {
        let (mut app, mut server, copying) = joined().await;
        app.shutdown().await.unwrap();
        let mut nothing = Vec::new();
        server.read_to_end(&mut nothing).await.unwrap();
        reset(app);
        let (ended, _, _) = tokio::time::timeout(LONG_ENOUGH, copying)
            .await
            .unwrap()
            .unwrap();
        assert!(ended.is_err());
    }

    #[tokio::test]
    async fn bytes_sent_before_a_reset_arrive() {
        let (mut app, mut server, copying) = joined().await;
        server.write_all(b"last words").await.unwrap();
        // Wait for them to be in the app's hands, as a real server's peer would acknowledge them.
        let mut answer = [0; 10];
        app.read_exact(&mut answer).await.unwrap();
        reset(server);
        let (ended, _, received) = copying.await.unwrap();
        assert!(ended.is_err());
        assert_eq!(received, 10);
    }
}
