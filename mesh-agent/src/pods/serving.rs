//! The agent's listeners in one pod, and the tasks that accept from them.

use std::{
    net::{TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::listener::{Families, Opened, Wanted};
use crate::proxy::{Direction, PodProxy, serve, serve_datagrams, workers};

/// How long listeners go on accepting once the kernel half has stopped redirecting to them: a
/// connection may be queued, or between the kernel half's verdict and its handshake.
const LINGER: Duration = Duration::from_millis(100);

/// Listeners that are served. Dropped, they close at once; see [`Serving::stop`].
#[derive(Debug, Default)]
pub(super) struct Serving {
    streams: Families<Option<AbortHandle>>,
    inbound: Families<Option<AbortHandle>>,
    datagrams: Families<Option<AbortHandle>>,
    tasks: JoinSet<()>,
    /// Its drop tells the tasks to end.
    running: watch::Sender<()>,
}

impl Serving {
    /// The sockets that are not there: never opened, or destroyed from inside the pod.
    pub fn missing(&self) -> Wanted {
        let is_missing =
            |task: &Option<AbortHandle>| task.as_ref().is_none_or(AbortHandle::is_finished);
        let of_families = |tasks: &Families<Option<AbortHandle>>| Families {
            ipv4: is_missing(&tasks.ipv4),
            ipv6: is_missing(&tasks.ipv6),
        };
        Wanted {
            streams: of_families(&self.streams),
            inbound: of_families(&self.inbound),
            datagrams: of_families(&self.datagrams),
        }
    }

    /// Serves these listeners too.
    pub fn add(&mut self, opened: Opened, pod: &Arc<PodProxy>) {
        while self.tasks.try_join_next().is_some() {}
        let mut spawn_stream = |listener: TcpListener, direction| {
            let serving = serve(listener, Arc::clone(pod), direction);
            let serving = until_stopped(serving, self.running.subscribe());
            self.tasks.spawn_on(serving, &workers::in_turn())
        };
        let Opened {
            streams,
            inbound,
            datagrams,
            ..
        } = opened;
        for (direction, opened, serving) in [
            (Direction::Outbound, streams, &mut self.streams),
            (Direction::Inbound, inbound, &mut self.inbound),
        ] {
            if let Some(listener) = opened.ipv4 {
                serving.ipv4 = Some(spawn_stream(listener, direction));
            }
            if let Some(listener) = opened.ipv6 {
                serving.ipv6 = Some(spawn_stream(listener, direction));
            }
        }
        let mut spawn_datagrams = |socket: UdpSocket| {
            let serving = serve_datagrams(socket, Arc::clone(pod));
            let serving = until_stopped(serving, self.running.subscribe());
            self.tasks.spawn_on(serving, &workers::in_turn())
        };
        if let Some(socket) = datagrams.ipv4 {
            self.datagrams.ipv4 = Some(spawn_datagrams(socket));
        }
        if let Some(socket) = datagrams.ipv6 {
            self.datagrams.ipv6 = Some(spawn_datagrams(socket));
        }
    }

    /// Takes datagrams no more: this pod's are not captured any longer.
    pub fn stop_datagrams(&mut self) {
        abort(std::mem::take(&mut self.datagrams));
    }

    /// Takes connections from outside no more.
    pub fn stop_inbound(&mut self) {
        abort(std::mem::take(&mut self.inbound));
    }

    /// Closes the listeners once what is queued there is accepted; call when the kernel half
    /// redirects no more. The tasks end by themselves; dropped, they end at once.
    pub fn stop(self) -> JoinSet<()> {
        self.tasks
    }
}

fn abort(Families { ipv4, ipv6 }: Families<Option<AbortHandle>>) {
    for task in ipv4.into_iter().chain(ipv6) {
        task.abort();
    }
}

async fn until_stopped(serving: impl Future<Output = ()>, mut running: watch::Receiver<()>) {
    let stopped = async {
        while running.changed().await.is_ok() {}
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = serving => {}
        () = stopped => {}
    }
}

/// Waits until all of them have ended.
pub(super) async fn ended(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Counts the connections that are accepted.
    async fn count(listener: TcpListener, accepted: &AtomicUsize) {
        while listener.accept().await.is_ok() {
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_stopped_listener_accepts_what_is_queued_and_then_ends() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let accepted = AtomicUsize::new(0);
        let running = watch::Sender::new(());
        let receiver = running.subscribe();
        drop(running);
        until_stopped(count(listener, &accepted), receiver).await;
        assert_eq!(accepted.load(Ordering::Relaxed), clients.len());
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn dropped_serving_closes_its_listeners() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = Serving::default();
        let receiver = serving.running.subscribe();
        let task = serving.tasks.spawn(until_stopped(
            async move { count(listener, &AtomicUsize::new(0)).await },
            receiver,
        ));
        serving.streams.ipv4 = Some(task.clone());
        let missing = serving.missing().streams;
        assert!(!missing.ipv4 && missing.ipv6);
        drop(serving);
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(TcpStream::connect(address).await.is_err());
    }
}
