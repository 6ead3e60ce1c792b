//! Captured datagrams: DNS queries are answered, others forwarded flow by flow.

mod counters;
mod flows;
mod packet_info;

use std::{
    io,
    net::{self, IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::net::UdpSocket;

pub use counters::{DatagramCounters, DatagramStatus};
use flows::Flows;
use packet_info::{Received, send, try_receive};

use super::{PodProxy, dns};
use crate::latency;

/// The largest datagram.
const LARGEST: usize = 65_535;

/// How long to leave datagrams waiting after an error that is none of theirs.
const PAUSE: Duration = Duration::from_millis(20);

/// An app's datagram, and how to answer it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    /// The address that stands for the server to the app.
    token: IpAddr,
}

impl Asked {
    /// Sends the app a datagram that it takes for the server's.
    pub fn answer(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.socket, bytes, self.token, self.client)
    }
}

/// Serves the datagrams that come to `socket`, until dropped.
pub async fn serve_datagrams(socket: net::UdpSocket, pod: Arc<PodProxy>) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!("cannot wait for datagrams: {error}"),
    };
    let mut is_stamped = false;
    let mut flows = Flows::new(Arc::clone(&pod));
    let queries = dns::Queries::new(Arc::clone(&pod));
    let mut buffer = vec![0; LARGEST];
    loop {
        if !is_stamped && pod.latency.rate().share > 0.0 {
            is_stamped = true;
            if let Err(error) = latency::prepare_datagrams(&*socket) {
                tracing::debug!("the kernel gives no packet timestamps: {error}");
            }
        }
        if socket.readable().await.is_err() {
            return;
        }
        match try_receive(&socket, &mut buffer) {
            Ok(Some(Received {
                length,
                from,
                to,
                came,
            })) => {
                // Not redirected, or closed by now: nobody waits for an answer.
                let Some(server) = pod.maps.datagram_origin(pod.netns.cookie(), to) else {
                    continue;
                };
                let asked = Asked {
                    socket: Arc::clone(&socket),
                    client: from,
                    token: to,
                };
                if pod.is_dns(server.port()) {
                    queries.serve(asked, server, &buffer[..length], came);
                } else {
                    flows.forward(asked, server, &buffer[..length]);
                }
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!("pod at {}: {error}", pod.netns.path().display());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
