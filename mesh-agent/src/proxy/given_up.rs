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
    tokio::select! {
        () = reset(app) => {}
        () = closed(app) => sleep(AFTER_CLOSE).await,
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
