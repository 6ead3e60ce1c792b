//! DNS over TCP: the connections of a pod to the DNS ports of servers.

use std::{io, net::SocketAddr, sync::atomic::AtomicU64};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    counters::add,
    exchange::{From, read_message, write_message},
    query::Query,
    resolver::Transport,
};
use crate::proxy::{PodProxy, copy::copy_both_ways};

/// Answers the queries that come over `client`. Anything but a plain query makes the connection one
/// with the server: a zone transfer has many answers.
pub async fn serve_stream(
    mut client: TcpStream,
    server: SocketAddr,
    pod: &PodProxy,
    sent: &AtomicU64,
    received: &AtomicU64,
) -> io::Result<()> {
    let from = From {
        netns: &pod.netns,
        maps: &pod.maps,
        stamps: None,
    };
    loop {
        let message = match read_message(&mut client).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return crate::pods::close_in_order(&client);
            }
            other => other?,
        };
        let Some(query) = Query::parse(&message, server) else {
            let mut upstream = from.stream(server).await?;
            write_message(&mut upstream, &message).await?;
            upstream.flush().await?;
            copy_both_ways(&client, &upstream, sent, received).await?;
            crate::pods::close_in_order(&client)?;
            return crate::pods::close_in_order(&upstream);
        };
        add(&pod.resolver.counters().queries);
        let answer = pod
            .resolver
            .answer(from, server, &query, Transport::Stream)
            .await;
        write_message(&mut client, &answer).await?;
        count(sent, message.len());
        count(received, answer.len());
    }
}

fn count(total: &AtomicU64, bytes: usize) {
    total.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
}
