//! Notices an app that gives up while its server does not answer: without the agent, closing the
//! socket would end the attempt, and its resources with it.

use std::time::Duration;

use tokio::{io::Interest, net::TcpStream, time::sleep};

/// How often to look whether the app closed. There is no waiting for that alone: an app that sent
/// its request already makes the socket readable.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An app that closed may only have closed its half, to read the answer still.
const AFTER_CLOSE: Duration = Duration::from_secs(10);

/// Resolves when nobody waits for the server any more.
pub async fn given_up(app: &TcpStream) {
    let closed_for_good = async {
        closed(app).await;
        sleep(AFTER_CLOSE).await;
    };
    tokio::select! {
        () = reset(app) => {}
        () = closed_for_good => {}
    }
}

async fn reset(app: &TcpStream) {
    // An error is as good a sign.
    let _error = app.ready(Interest::ERROR).await;
}

async fn closed(app: &TcpStream) {
    loop {
        sleep(LOOK_EVERY).await;
        // Returns at once: the socket is writable.
        match app.ready(Interest::READABLE | Interest::WRITABLE).await {
            Ok(ready) if !ready.is_read_closed() => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn a_reset_after_the_half_close_is_seen_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (app, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut app, client) = (app.unwrap(), accepted.unwrap().0);
        app.shutdown().await.unwrap();
        let mut giving_up = Box::pin(given_up(&client));
        // It may want to read the answer still.
        assert!(timeout(LOOK_EVERY * 4, &mut giving_up).await.is_err());
        SockRef::from(&app)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(app);
        assert!(timeout(AFTER_CLOSE / 2, giving_up).await.is_ok());
    }
}
