//! Connections in use, and who waits for one.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::policy::ConnectionLimit;

/// Connections in use, and who waits for one: first come, first served.
#[derive(Debug, Default)]
pub struct Connections {
    in_use: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
}

/// A connection that may be used until this is dropped.
#[derive(Debug)]
pub struct Slot(Arc<Connections>);

/// None was there in time, or too many wait for one already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot;

impl Connections {
    /// A connection, if one is free and nobody waits for it.
    pub fn at_once(self: &Arc<Self>, limit: ConnectionLimit) -> Result<Slot, NoSlot> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return Err(NoSlot);
        }
        self.take(limit)
    }

    /// A connection, as soon as one is free.
    pub async fn wait(
        self: &Arc<Self>,
        limit: ConnectionLimit,
        most: Duration,
    ) -> Result<Slot, NoSlot> {
        if let Ok(slot) = self.at_once(limit) {
            return Ok(slot);
        }
        let _waiting = Waiting::begin(&self.waiting, limit.pending).ok_or(NoSlot)?;
        let freed = async {
            loop {
                let mut freed = pin!(self.freed.notified());
                // What is freed from now on is noticed: it may have been between the look and the wait.
                freed.as_mut().enable();
                if let Ok(slot) = self.take(limit) {
                    return slot;
                }
                freed.await;
            }
        };
        timeout(most, freed).await.map_err(|_late| NoSlot)
    }

    /// Connections in use, and requests that wait for one.
    pub fn counts(&self) -> (u32, u32) {
        (
            self.in_use.load(Ordering::Relaxed),
            self.waiting.load(Ordering::Relaxed),
        )
    }

    fn take(self: &Arc<Self>, limit: ConnectionLimit) -> Result<Slot, NoSlot> {
        let one_more = |used: u32| (used < limit.most).then_some(used + 1);
        let taken = self
            .in_use
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        taken.map(|_| Slot(Arc::clone(self))).map_err(|_| NoSlot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_one();
        }
    }
}

/// Counts who waits until dropped.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicU32, most: u32) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::SeqCst);
        let this = Self(waiting);
        (before < most).then_some(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: ConnectionLimit = ConnectionLimit {
        most: 2,
        pending: 1,
    };
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn there_are_as_many_as_may_be_and_as_many_wait() {
        let connections = Arc::new(Connections::default());
        let one = connections.wait(LIMIT, SOON).await.unwrap();
        let _two = connections.wait(LIMIT, SOON).await.unwrap();
        let waiting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.wait(LIMIT, SOON).await.is_ok() }
        });
        while connections.counts() != (2, 1) {
            tokio::task::yield_now().await;
        }
        assert_eq!(connections.wait(LIMIT, SOON).await.err(), Some(NoSlot));
        drop(one);
        assert!(waiting.await.unwrap());
        assert_eq!(connections.counts(), (1, 0));
        let more = ConnectionLimit { most: 3, ..LIMIT };
        let _three = (connections.at_once(more), connections.at_once(more));
        assert_eq!(
            connections.counts(),
            (3, 0),
            "a new limit counts what is in use"
        );
        assert_eq!(connections.at_once(LIMIT).err(), Some(NoSlot));
    }

    /// Many at once, some of whom give up: nobody is forgotten, and there are never too many.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_free_connection_is_lost() {
        let connections = Arc::new(Connections::default());
        let limit = ConnectionLimit {
            most: 3,
            pending: 1000,
        };
        let tasks: Vec<_> = (0..400_u32)
            .map(|number| {
                let connections = Arc::clone(&connections);
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let patience = if number.is_multiple_of(4) {
                            Duration::from_micros(50)
                        } else {
                            SOON
                        };
                        let slot = connections.wait(limit, patience).await;
                        assert!(connections.counts().0 <= 3);
                        assert!(slot.is_ok() || number.is_multiple_of(4));
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(connections.counts(), (0, 0));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let connections = Arc::new(Connections::default());
        let limit = ConnectionLimit { most: 1, ..LIMIT };
        let _one = connections.at_once(limit).unwrap();
        let waited = connections.wait(limit, Duration::from_millis(1)).await;
        assert_eq!(waited.err(), Some(NoSlot));
        assert_eq!(connections.counts(), (1, 0));
    }
}
