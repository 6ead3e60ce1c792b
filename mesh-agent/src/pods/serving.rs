//! The agent's listeners in one pod, and the tasks that accept from them.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    Netns,
    listener::{Listeners, Opened},
};
use crate::{
    kernel::Maps,
    proxy::{Connections, serve},
};

/// How long listeners go on accepting once the kernel half has stopped redirecting to them: a
/// connection may be queued, or between the kernel half's verdict and its handshake.
const LINGER: Duration = Duration::from_millis(100);

/// Listeners that are served. Dropped, they close at once; see [`Serving::stop`].
#[derive(Debug, Default)]
pub(super) struct Serving {
    listeners: Listeners<Option<AbortHandle>>,
    tasks: JoinSet<()>,
    /// Its drop tells the tasks to end.
    running: watch::Sender<()>,
}

impl Serving {
    /// The listeners that are not there: never opened, or destroyed from inside the pod.
    pub fn missing(&self) -> Listeners<bool> {
        let is_missing =
            |task: &Option<AbortHandle>| task.as_ref().is_none_or(AbortHandle::is_finished);
        Listeners {
            ipv4: is_missing(&self.listeners.ipv4),
            ipv6: is_missing(&self.listeners.ipv6),
        }
    }

    /// Serves these listeners too.
    pub fn add(
        &mut self,
        opened: Opened,
        netns: &Arc<Netns>,
        maps: &Arc<Maps>,
        connections: &Arc<Connections>,
    ) {
        while self.tasks.try_join_next().is_some() {}
        let mut spawn = |listener: TcpListener| {
            let serving = serve(
                listener,
                Arc::clone(netns),
                Arc::clone(maps),
                Arc::clone(connections),
            );
            self.tasks
                .spawn(until_stopped(serving, self.running.subscribe()))
        };
        if let Some(listener) = opened.ipv4 {
            self.listeners.ipv4 = Some(spawn(listener));
        }
        if let Some(listener) = opened.ipv6 {
            self.listeners.ipv6 = Some(spawn(listener));
        }
    }

    /// Closes the listeners once what is queued there is accepted; call when the kernel half
    /// redirects no more. The tasks end by themselves; dropped, they end at once.
    pub fn stop(self) -> JoinSet<()> {
        self.tasks
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

    use tokio::net::TcpStream;

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
        serving.listeners.ipv4 = Some(task.clone());
        assert!(!serving.missing().ipv4 && serving.missing().ipv6);
        drop(serving);
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(TcpStream::connect(address).await.is_err());
    }
}
