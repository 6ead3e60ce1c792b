//! Finds out that a peer vanished without a word.
//!
//! A peer that was silent for a whole interval is sent a PING; one that is silent for another is taken for dead.
//! Whatever comes is a sign of life. There is no clock to be read for that while frames come and go.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::Heard;

/// Watches a peer.
#[derive(Debug)]
pub struct Keepalive {
    ping: Option<PingPong>,
    heard: Heard,
    interval: Interval,
    /// It was silent for an interval, and was sent a PING.
    is_suspect: bool,
}

impl Keepalive {
    /// Watches the peer that is `heard`, and that `ping` reaches. A dead one is noticed two to three intervals after
    /// its last word.
    pub fn new(ping: Option<PingPong>, heard: Heard, interval: Duration) -> Self {
        let mut interval = interval_at(Instant::now() + interval, interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ping,
            heard,
            interval,
            is_suspect: false,
        }
    }

    /// Ready when the peer is dead. One that is `idle` may be silent.
    pub fn poll(&mut self, idle: impl Fn() -> bool, context: &mut Context<'_>) -> Poll<()> {
        while self.interval.poll_tick(context).is_ready() {
            let Some(ping) = &mut self.ping else {
                continue;
            };
            // Makes room for the next one.
            let _pong = ping.poll_pong(context);
            if self.heard.take() {
                self.is_suspect = false;
            } else if self.is_suspect {
                return Poll::Ready(());
            } else if !idle() {
                // One that is still under way will do.
                let _under_way = ping.send_ping(Ping::opaque());
                self.is_suspect = true;
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::Pin};

    use bytes::Bytes;
    use tokio::{io::duplex, time::timeout};

    use super::*;
    use crate::proxy::http::http2::listened_to;

    const INTERVAL: Duration = Duration::from_millis(50);

    /// Whether a server that answers PINGs, or does not, is taken for dead within ten intervals.
    async fn is_taken_for_dead(answers: bool, is_idle: bool) -> bool {
        let (here, there) = duplex(1 << 16);
        let (here, heard) = listened_to(here);
        let (_sender, mut connection) = h2::client::handshake(here).await.unwrap();
        let server = tokio::spawn(async move {
            let mut server = h2::server::handshake(there).await.unwrap();
            if answers {
                poll_fn(|context| server.poll_closed(context))
                    .await
                    .unwrap();
            }
            // Keeps the connection open.
            std::future::pending::<Bytes>().await;
        });
        let mut keepalive = Keepalive::new(connection.ping_pong(), heard, INTERVAL);
        let died = poll_fn(|context| {
            assert!(Pin::new(&mut connection).poll(context).is_pending());
            keepalive.poll(|| is_idle, context)
        });
        let died = timeout(10 * INTERVAL, died).await.is_ok();
        server.abort();
        died
    }

    #[tokio::test]
    async fn who_answers_is_alive_and_who_does_not_is_dead() {
        assert!(!is_taken_for_dead(true, false).await);
        assert!(is_taken_for_dead(false, false).await);
    }

    #[tokio::test]
    async fn who_has_nothing_to_do_may_be_silent() {
        assert!(!is_taken_for_dead(false, true).await);
    }
}
