//! What TCP says of connections that carry no requests that the agent knows of: TLS, databases.
//!
//! Nobody knows when an answer begins there, so they have no stages. How long the network takes, and what it loses, the
//! kernel knows of each.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use super::{
    PodProxy,
    destinations::{Destination, Endpoint},
};
use crate::latency::{self, Account, Outcome, Source, Unclear};

/// Of one that lives long it is told so often.
const EVERY: Duration = Duration::from_secs(30);

/// Waits until `joined` has ended, and tells of the connection `server` to `endpoint` meanwhile.
pub(super) async fn told<T>(
    joined: impl Future<Output = T>,
    pod: &PodProxy,
    destination: &Destination,
    endpoint: &Endpoint,
    server: &TcpStream,
) -> T {
    let mut known = 0;
    again_and_again(joined, EVERY, || {
        let Ok(info) = latency::tcp_info(server) else {
            return;
        };
        let resent = info.retransmits - std::mem::replace(&mut known, info.retransmits);
        let outcome = Outcome {
            stages: Err(Unclear::NoRequest),
            source: Source::default(),
            info,
            resent,
        };
        let (now, name) = (Instant::now(), &destination.name);
        let pod_name: Arc<str> = pod.servers.pod();
        let account = Account::of(&pod.latency, &pod_name, name, endpoint.address, now);
        account.add(outcome, now);
    })
    .await
}

/// Calls `tell` as long as `future` has not ended, and when it has.
async fn again_and_again<T>(
    future: impl Future<Output = T>,
    every: Duration,
    mut tell: impl FnMut(),
) -> T {
    let mut future = pin!(future);
    loop {
        let ended = timeout(every, &mut future).await;
        tell();
        if let Ok(ended) = ended {
            return ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn one_that_lives_long_is_told_of_before_it_ends_and_then() {
        let told = Cell::new(0);
        let lives_long = async {
            while told.get() < 3 {
                sleep(Duration::from_millis(1)).await;
            }
            told.get()
        };
        let every = Duration::from_millis(10);
        let at_its_end = again_and_again(lives_long, every, || told.set(told.get() + 1)).await;
        assert_eq!(told.get(), at_its_end + 1);

        told.set(0);
        again_and_again(async {}, EVERY, || told.set(told.get() + 1)).await;
        assert_eq!(told.get(), 1);
    }
}
