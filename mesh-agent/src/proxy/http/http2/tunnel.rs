//! A client's stream and a server's that are joined.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;
use h2::SendStream;

use super::{Received, Sending, sending::Unsent};
use crate::proxy::http::try_guard::TryGuard;

/// What a client's stream is joined to after the answer.
pub struct Tunnel {
    /// What comes from the client.
    pub client: Received,
    /// What goes to the server.
    pub server: SendStream<Bytes>,
    /// What comes from it.
    pub said: Received,
    /// What counts for as long as it is open.
    pub held: TryGuard,
}

impl Tunnel {
    /// Passes on what comes either way, until both directions have ended. Where one stream is reset, both end, and
    /// the other is reset.
    pub async fn join(self, client: SendStream<Bytes>) -> Result<(), Unsent> {
        let _held = self.held;
        let mut up = Sending::new(self.server, self.client);
        let mut down = Sending::new(client, self.said);
        let (mut sent_up, mut sent_down) = (Poll::Pending, Poll::Pending);
        poll_fn(|context| {
            if sent_up.is_pending() {
                sent_up = up.poll(context);
            }
            if sent_down.is_pending() {
                sent_down = down.poll(context);
            }
            if sent_up.is_pending() || sent_down.is_pending() {
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        for sent in [sent_up, sent_down] {
            if let Poll::Ready(Err(error)) = sent {
                return Err(error);
            }
        }
        Ok(())
    }
}
