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
    /// Passes on what comes either way, until both directions have ended or one is reset, which resets the other.
    pub async fn join(self, client: SendStream<Bytes>) -> Result<(), Unsent> {
        let _held = self.held;
        let mut up = Sending::new(self.server, self.client);
        let mut down = Sending::new(client, self.said);
        let (mut is_up, mut is_down) = (true, true);
        poll_fn(|context| {
            // Both before either is dropped: a reset is to arrive as what it was.
            let sent_up = is_up.then(|| up.poll(context));
            let sent_down = is_down.then(|| down.poll(context));
            for (sent, goes_on) in [(sent_up, &mut is_up), (sent_down, &mut is_down)] {
                if let Some(Poll::Ready(sent)) = sent {
                    sent?;
                    *goes_on = false;
                }
            }
            if is_up || is_down {
                Poll::Pending
            } else {
                Poll::Ready(Ok(()))
            }
        })
        .await
    }
}
