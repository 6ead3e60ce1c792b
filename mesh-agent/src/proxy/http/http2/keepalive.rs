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
