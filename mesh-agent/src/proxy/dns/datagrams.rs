//! Answers the datagrams of a pod.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::UdpSocket,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    counters::add,
    exchange::From,
    packet_info::{Received, send, try_receive},
    query::Query,
    resolver::Transport,
    wire::HEADER,
};
use crate::proxy::PodProxy;

/// The largest datagram.
const LARGEST: usize = 65_535;

/// Queries of a pod under way at once, each with a socket of its own.
const MOST_UNDER_WAY: usize = 512;

/// How long to leave datagrams waiting after an error that is none of theirs.
const PAUSE: Duration = Duration::from_millis(20);

/// Answers the datagrams that come to `socket`, until dropped.
pub async fn serve_datagrams(socket: UdpSocket, pod: Arc<PodProxy>) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(MOST_UNDER_WAY));
    let mut buffer = vec![0; LARGEST];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        match try_receive(&socket, &mut buffer) {
            Ok(Some(received)) => {
                let message = &buffer[..received.length];
                add(&pod.resolver.counters().queries);
                match Arc::clone(&room).try_acquire_owned() {
                    Ok(permit) => serve(&socket, &pod, received, message, permit),
                    Err(_full) => add(&pod.resolver.counters().dropped),
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

fn serve(
    socket: &Arc<UdpSocket>,
    pod: &Arc<PodProxy>,
    received: Received,
    message: &[u8],
    permit: OwnedSemaphorePermit,
) {
    let Some(server) = pod.maps.datagram_origin(pod.netns.cookie(), received.to) else {
        return;
    };
    let query = Query::parse(message, server);
    let message = message.to_vec();
    let (socket, pod) = (Arc::clone(socket), Arc::clone(pod));
    tokio::spawn(async move {
        let _permit = permit;
        let from = From {
            netns: &pod.netns,
            maps: &pod.maps,
        };
        let answer = match &query {
            Some(query) => Ok(pod
                .resolver
                .answer(from, server, query, Transport::Datagram)
                .await),
            None if message.len() < HEADER => return,
            None => pod.resolver.pass_on(from, server, &message).await,
        };
        let sent = answer.and_then(|answer| send(&socket, &answer, received.to, received.from));
        if let Err(error) = sent {
            tracing::debug!(
                "pod at {}: DNS server {server}: {error}",
                pod.netns.path().display()
            );
        }
    });
}
