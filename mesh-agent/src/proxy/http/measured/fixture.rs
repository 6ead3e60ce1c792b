//! Measured requests of which only the packets are looked at.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use http::Method;

use super::{Detail, Measured, Phase, Side};
use crate::{
    latency::{Account, Arrival, Book, Leg, TcpInfo, Waypoints},
    proxy::http::{hearing::Hearing, http2::StreamStamps, receipts::Receipts},
};

impl Measured {
    /// Request `number` of a client's connection, whose answer has come. In the book it is under `path`,
    /// whether all stamps of it are wanted or not.
    pub fn of_request(
        book: &Arc<Book>,
        receipts: &Arc<Receipts>,
        number: u64,
        path: &str,
        is_whole: bool,
    ) -> Self {
        let side = Side::Http1(Arc::clone(receipts), number);
        let mut measured = Self::answered_by(book, side, path);
        measured.is_whole = is_whole;
        measured
    }

    /// The same of the request on `stream`.
    pub fn of_stream(
        book: &Arc<Book>,
        stamps: &Arc<StreamStamps>,
        stream: u32,
        path: &str,
    ) -> Self {
        let side = Side::Http2(Arc::clone(stamps), stream);
        Self::answered_by(book, side, path)
    }

    fn answered_by(book: &Arc<Book>, side: Side, path: &str) -> Self {
        let (pod, destination) = ("client".into(), "server".into());
        let endpoint = SocketAddr::from(([0, 0, 0, 0], 0));
        let now = Instant::now();
        let server = Arc::<Leg>::default();
        let message = server.begin(true);
        server.arrived(None);
        Self {
            blocked_before: side.leg().blocked(),
            begun: now,
            client: Arc::clone(side.leg()),
            side: Some(side),
            account: Some(Account::of(book, &pod, &destination, endpoint, now)),
            status: 200,
            tries: 1,
            way: Waypoints {
                answered_first: Arrival::now(None),
                ..Waypoints::default()
            },
            info: TcpInfo::default(),
            resent: 0,
            is_whole: true,
            detail: Some(Box::new(Detail {
                method: Method::GET,
                path: path.into(),
                trace: None,
            })),
            upstream: Some(Hearing::Connection(server, message, false)),
            phase: Phase::Begun,
        }
    }
}
