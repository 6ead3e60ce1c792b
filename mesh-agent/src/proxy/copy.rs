//! Copies bytes both ways between two TCP streams: half-close is passed on, and a reset of either
//! side is passed on as a reset, after all that this side had sent.

use std::{io, pin::pin, sync::atomic::AtomicU64};

use tokio::{io::Interest, net::TcpStream};

use super::{
    direction::{Broken, copy, discard, pass_on_end},
    last_words::last_words,
};

/// Who is gone.
enum Gone {
    Client,
    Server,
}

/// Copies until both directions have ended. An error means that one side is gone, and all that it
/// had sent is with the other, or that one does not take it: the caller must reset the other.
pub async fn copy_both_ways(
    client: &TcpStream,
    server: &TcpStream,
    sent: &AtomicU64,
    received: &AtomicU64,
) -> io::Result<()> {
    let mut upload = pin!(copy(client, server, sent));
    let mut download = pin!(copy(server, client, received));
    // Nobody would notice a reset of a side whose direction has ended, or whose bytes the other has
    // no room for.
    let mut client_reset = pin!(reset_by_peer(client));
    let mut server_reset = pin!(reset_by_peer(server));
    let (mut uploading, mut downloading) = (true, true);
    // An error that a write returns is not shown to the next read, which then takes a reset for the
    // end. The kernel's EPIPE says that the end had come before the reset.
    let mut end_is_real = true;
    let gone = loop {
        tokio::select! {
            biased;
            ended = &mut upload, if uploading => {
                uploading = false;
                match ended {
                    Ok(()) => pass_on_end(server),
                    Err(Broken::Source) => break Gone::Client,
                    Err(Broken::Target(error)) => {
                        end_is_real = error.kind() == io::ErrorKind::BrokenPipe;
                        break Gone::Server;
                    }
                }
            }
            ended = &mut download, if downloading => {
                downloading = false;
                match ended {
                    Ok(()) => pass_on_end(client),
                    Err(Broken::Source) => break Gone::Server,
                    Err(Broken::Target(error)) => {
                        end_is_real = error.kind() == io::ErrorKind::BrokenPipe;
                        break Gone::Client;
                    }
                }
            }
            () = &mut client_reset => break Gone::Client,
            () = &mut server_reset => break Gone::Server,
        }
        if !uploading && !downloading {
            return Ok(());
        }
    };
    // What the other side still sends has nowhere to go.
    match gone {
        Gone::Client => {
            let rest = uploading.then_some(upload);
            tokio::select! {
                () = last_words(rest, server, sent, end_is_real) => {}
                never = discard(server) => match never {},
            }
        }
        Gone::Server => {
            let rest = downloading.then_some(download);
            tokio::select! {
                () = last_words(rest, client, received, end_is_real) => {}
                never = discard(client) => match never {},
            }
        }
    }
    Err(io::ErrorKind::ConnectionReset.into())
}

/// Resolves when the peer has reset the connection.
async fn reset_by_peer(stream: &TcpStream) {
    // An error is as good a sign.
    let _error = stream.ready(Interest::ERROR).await;
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
    use crate::{pods, proxy::last_words::delivered};

    const LONG_ENOUGH: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// The app's end, the server's end, and what goes on in between.
    async fn joined() -> (TcpStream, TcpStream, JoinHandle<(io::Result<()>, u64, u64)>) {
        let (app, client) = pair().await;
        let (far_end, server) = pair().await;
        for socket in [&client, &server] {
            pods::reset_on_close(socket).unwrap();
            SockRef::from(socket).set_out_of_band_inline(true).unwrap();
        }
        let copying = tokio::spawn(async move {
            let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
            let ended = copy_both_ways(&client, &server, &sent, &received).await;
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

    /// Enough for the kernel to move it: splice(2) stops before an urgent byte, for ever.
    #[tokio::test]
    async fn an_urgent_byte_in_a_bulk_stream_stays_in_its_place() {
        let (mut app, mut server, copying) = joined().await;
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

    #[tokio::test]
    async fn an_answer_arrives_though_the_server_closed_with_the_upload_unread() {
        let (mut app, mut server, copying) = joined().await;
        fill(&mut app).await;
        server.read_exact(&mut [0; 1000]).await.unwrap();
        server.write_all(&vec![7; 100_000]).await.unwrap();
        acknowledged(&server).await;
        // What it did not read makes the kernel reset the connection.
        drop(server);
        let (ended, _, received) = copying.await.unwrap();
        assert!(ended.is_err());
        assert_eq!(received, 100_000);
        let mut answer = Vec::new();
        let end = app.read_to_end(&mut answer).await;
        assert_eq!(answer.len(), 100_000);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn an_app_that_reads_only_after_its_upload_gets_the_whole_answer() {
        let (mut app, mut server, copying) = joined().await;
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

    #[tokio::test]
    async fn an_upload_arrives_though_the_client_reset_with_the_answer_unread() {
        let (mut app, mut server, copying) = joined().await;
        fill(&mut server).await;
        app.write_all(&vec![7; 100_000]).await.unwrap();
        acknowledged(&app).await;
        drop(app);
        let (ended, sent, _) = copying.await.unwrap();
        assert!(ended.is_err());
        assert_eq!(sent, 100_000);
        let mut upload = Vec::new();
        let end = server.read_to_end(&mut upload).await;
        assert_eq!(upload.len(), 100_000);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn all_that_was_acknowledged_before_a_reset_reaches_a_slow_reader() {
        let (mut app, mut server, copying) = joined().await;
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

    #[tokio::test]
    async fn a_reset_is_passed_on_though_the_other_side_does_not_read() {
        let (mut app, server, copying) = joined().await;
        fill(&mut app).await;
        reset(app);
        let (ended, _, _) = tokio::time::timeout(LONG_ENOUGH, copying)
            .await
            .unwrap()
            .unwrap();
        assert!(ended.is_err());
        drop(server);
    }
}
