use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{AtomicU64, Duplex, copy_both_ways, io};
use crate::{
    latency::{Leg, StampedStream, WasStamped},
    pods,
    proxy::last_words::delivered,
};

const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// Each case between connections that were never measured, and between such as were.
macro_rules! cases {
    ($($name:ident)*) => {
        mod plain {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<super::TcpStream>().await;
            })*
        }

        mod stamped {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<super::WasStamped>().await;
            })*
        }
    };
}

cases! {
    bytes_arrive_both_ways_and_are_counted
    an_urgent_byte_in_a_bulk_stream_stays_in_its_place
    a_half_closed_client_still_reads
    a_reset_ends_the_copying_with_an_error
    a_reset_after_half_close_is_noticed_while_the_server_is_silent
    bytes_sent_before_a_reset_arrive
    an_answer_arrives_though_the_server_closed_with_the_upload_unread
    an_app_that_reads_only_after_its_upload_gets_the_whole_answer
    an_upload_arrives_though_the_client_reset_with_the_answer_unread
    all_that_was_acknowledged_before_a_reset_reaches_a_slow_reader
    a_reset_is_passed_on_though_the_other_side_does_not_read
    a_reader_that_stalls_costs_nothing
}

/// A connection to copy from and to.
trait Made: Duplex + Send + Sync + Sized + 'static {
    /// Makes one of this; `peer` is the other end.
    fn made(stream: TcpStream, peer: &mut TcpStream) -> impl Future<Output = Self> + Send;
}

impl Made for TcpStream {
    async fn made(stream: TcpStream, _peer: &mut TcpStream) -> Self {
        stream
    }
}

impl Made for WasStamped {
    /// With stamps in its error queue.
    async fn made(stream: TcpStream, peer: &mut TcpStream) -> Self {
        let leg = Arc::<Leg>::default();
        let mut stream = StampedStream::new(stream, Arc::clone(&leg));
        for _ in 0..3 {
            leg.begin(true);
            leg.ask_way();
            stream.write_all(b"!").await.unwrap();
            peer.read_exact(&mut [0]).await.unwrap();
            // By now it is watched for reading only.
            peer.write_all(b"!").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
        }
        leg.stop();
        assert!(stream.leg().is_prepared());
        stream.into_was_stamped().unwrap()
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// How the copying ended, and what was sent and received.
type Copying = JoinHandle<(io::Result<()>, u64, u64)>;

/// The app's end, the server's end, and what goes on in between.
async fn joined<D: Made>() -> (TcpStream, TcpStream, Copying) {
    let (app, far_end, copying, _) = joined_and_watched::<D>().await;
    (app, far_end, copying)
}

/// The same, and how often it was looked whether there is something to copy.
async fn joined_and_watched<D: Made>() -> (TcpStream, TcpStream, Copying, Arc<AtomicU64>) {
    let (mut app, client) = pair().await;
    let (mut far_end, server) = pair().await;
    for socket in [&client, &server] {
        pods::reset_on_close(socket).unwrap();
        SockRef::from(socket).set_out_of_band_inline(true).unwrap();
    }
    let client = D::made(client, &mut app).await;
    let server = D::made(server, &mut far_end).await;
    let polls = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&polls);
    let copying = tokio::spawn(async move {
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut copying = pin!(copy_both_ways(&client, &server, &sent, &received));
        let ended = poll_fn(|context| {
            counted.fetch_add(1, Ordering::Relaxed);
            copying.as_mut().poll(context)
        })
        .await;
        (
            ended,
            sent.load(Ordering::Relaxed),
            received.load(Ordering::Relaxed),
        )
    });
    (app, far_end, copying, polls)
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

async fn bytes_arrive_both_ways_and_are_counted<D: Made>() {
    let (mut app, mut server, copying) = joined::<D>().await;
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

/// Enough for the kernel to move it: splice(2) stops before an urgent byte, for ever.
async fn an_urgent_byte_in_a_bulk_stream_stays_in_its_place<D: Made>() {
    let (mut app, mut server, copying) = joined::<D>().await;
    SockRef::from(&server).set_out_of_band_inline(true).unwrap();
    let bulk: Vec<u8> = (0..9_000_001_u32).map(|n| n as u8).collect();
    let expected = [bulk.as_slice(), b"!"].concat();
    let both = async {
        // Nothing comes after it, until it has arrived.
        for _ in 0..2 {
            let mut got = vec![0; expected.len()];
            let sending = async {
                app.write_all(&bulk).await.unwrap();
                SockRef::from(&app).send_out_of_band(b"!").unwrap();
            };
            tokio::join!(sending, server.read_exact(&mut got))
                .1
                .unwrap();
            assert!(got == expected);
        }
        let mut got = Vec::new();
        let sending = async {
            app.write_all(&bulk).await.unwrap();
            SockRef::from(&app).send_out_of_band(b"!").unwrap();
            app.shutdown().await.unwrap();
        };
        tokio::join!(sending, server.read_to_end(&mut got))
            .1
            .unwrap();
        assert!(got == expected);
    };
    tokio::time::timeout(LONG_ENOUGH, both).await.unwrap();
    drop((app, server));
    assert_eq!(copying.await.unwrap().1, 3 * expected.len() as u64);
}

async fn a_half_closed_client_still_reads<D: Made>() {
    let (mut app, mut server, _copying) = joined::<D>().await;
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

async fn a_reset_ends_the_copying_with_an_error<D: Made>() {
    let (app, _server, copying) = joined::<D>().await;
    reset(app);
    let (ended, _, _) = tokio::time::timeout(LONG_ENOUGH, copying)
        .await
        .unwrap()
        .unwrap();
    assert!(ended.is_err());
}

async fn a_reset_after_half_close_is_noticed_while_the_server_is_silent<D: Made>() {
    let (mut app, mut server, copying) = joined::<D>().await;
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

async fn bytes_sent_before_a_reset_arrive<D: Made>() {
    let (mut app, mut server, copying) = joined::<D>().await;
    server.write_all(b"last words").await.unwrap();
    // Wait for them to be in the app's hands, as a real server's peer would acknowledge them.
    let mut answer = [0; 10];
    app.read_exact(&mut answer).await.unwrap();
    reset(server);
    let (ended, _, received) = copying.await.unwrap();
    assert!(ended.is_err());
    assert_eq!(received, 10);
}

/// Waits until the peer's kernel has all that was written to `stream`.
async fn acknowledged(stream: &TcpStream) {
    tokio::time::timeout(LONG_ENOUGH, delivered(stream))
        .await
        .unwrap();
}

/// Writes until there is no room anywhere on the way.
async fn fill(stream: &mut TcpStream) {
    let block = vec![0; 1 << 16];
    while tokio::time::timeout(Duration::from_millis(200), stream.write(&block))
        .await
        .is_ok()
    {}
}

/// So many bytes, and then not the end but a reset.
async fn all_comes_and_a_reset(mut stream: TcpStream, count: usize) {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all).await;
    assert_eq!(all.len(), count);
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

async fn an_answer_arrives_though_the_server_closed_with_the_upload_unread<D: Made>() {
    let (mut app, mut server, copying) = joined::<D>().await;
    fill(&mut app).await;
    server.read_exact(&mut [0; 1000]).await.unwrap();
    server.write_all(&vec![7; 100_000]).await.unwrap();
    acknowledged(&server).await;
    // What it did not read makes the kernel reset the connection.
    drop(server);
    let (ended, _, received) = copying.await.unwrap();
    assert!(ended.is_err());
    assert_eq!(received, 100_000);
    all_comes_and_a_reset(app, 100_000).await;
}

async fn an_app_that_reads_only_after_its_upload_gets_the_whole_answer<D: Made>() {
    let (mut app, mut server, copying) = joined::<D>().await;
    let sending = async {
        app.write_all(&vec![0; 40 << 20]).await.unwrap();
        let mut answer = Vec::new();
        let end = app.read_to_end(&mut answer).await;
        (answer.len(), end)
    };
    let answering = async {
        server.read_exact(&mut [0; 1000]).await.unwrap();
        server.write_all(&vec![7; 2_000_000]).await.unwrap();
        acknowledged(&server).await;
        drop(server);
    };
    let ((received, end), ()) = tokio::join!(sending, answering);
    assert_eq!(received, 2_000_000);
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(copying.await.unwrap().0.is_err());
}

async fn an_upload_arrives_though_the_client_reset_with_the_answer_unread<D: Made>() {
    let (mut app, mut server, copying) = joined::<D>().await;
    fill(&mut server).await;
    app.write_all(&vec![7; 100_000]).await.unwrap();
    acknowledged(&app).await;
    drop(app);
    let (ended, sent, _) = copying.await.unwrap();
    assert!(ended.is_err());
    assert_eq!(sent, 100_000);
    all_comes_and_a_reset(server, 100_000).await;
}

async fn all_that_was_acknowledged_before_a_reset_reaches_a_slow_reader<D: Made>() {
    let (mut app, mut server, copying) = joined::<D>().await;
    let block = vec![7; 1 << 16];
    let mut written = 0;
    while let Ok(count) =
        tokio::time::timeout(Duration::from_millis(200), server.write(&block)).await
    {
        written += count.unwrap();
    }
    // Until the reader makes room for it all.
    let reading = async {
        let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            match app.read(&mut buffer).await {
                Ok(0) | Err(_) => return total,
                Ok(count) => total += count,
            }
        }
    };
    let resetting = async {
        acknowledged(&server).await;
        reset(server);
    };
    let (total, ()) = tokio::join!(reading, resetting);
    assert_eq!(total, written);
    assert!(copying.await.unwrap().0.is_err());
}

async fn a_reset_is_passed_on_though_the_other_side_does_not_read<D: Made>() {
    let (mut app, server, copying) = joined::<D>().await;
    fill(&mut app).await;
    reset(app);
    let (ended, _, _) = tokio::time::timeout(LONG_ENOUGH, copying)
        .await
        .unwrap()
        .unwrap();
    assert!(ended.is_err());
    drop(server);
}

async fn a_reader_that_stalls_costs_nothing<D: Made>() {
    let (mut app, mut server, copying, polls) = joined_and_watched::<D>().await;
    fill(&mut server).await;
    fill(&mut app).await;
    let before = polls.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let polls = polls.load(Ordering::Relaxed) - before;
    // The kernel may still make its buffers larger.
    assert!(polls < 50, "{polls}");
    assert!(!copying.is_finished());
}
