//! A connection from an app: where it goes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::net::TcpStream;

use super::{
    PodProxy,
    captured::Captured,
    connection::{Accepted, Moved},
    destinations::Target,
    dns,
    upstream::SeenAs,
};

/// Carries a connection to its end.
pub(super) async fn carry(
    client: TcpStream,
    accepted: &Accepted,
    pod: &Arc<PodProxy>,
    moved: &Arc<Moved>,
) -> io::Result<()> {
    let original: SocketAddr = accepted.destination;
    if pod.is_dns(original.port()) {
        return dns::serve_stream(client, original, pod, &moved.sent, &moved.received).await;
    }
    let captured = Captured {
        client,
        address: accepted.client,
        seen_as: SeenAs::Pod(bound_source(accepted.client.ip())),
        pod,
        moved,
    };
    let destinations = pod.destinations.get();
    let Some(route) = destinations.route(original) else {
        return captured.carry_to(original).await;
    };
    let protocol = route.protocol();
    let target = Target::configured(destinations, route);
    captured.carry(protocol, original, target).await
}

/// The address that the app had bound its socket to. Without one it has the loopback address that
/// the redirection led to.
fn bound_source(client: IpAddr) -> Option<IpAddr> {
    (!client.is_loopback()).then_some(client)
}
