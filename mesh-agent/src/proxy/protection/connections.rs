//! Connections in use, and who waits for one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::timeout,
};

use super::policy::ConnectionLimit;

/// Connections in use, and who waits for one: first come, first served.
#[derive(Debug, Default)]
pub struct Connections {
    free: Mutex<Option<Free>>,
    waiting: AtomicU32,
}

#[derive(Clone, Debug)]
struct Free {
    most: u32,
    semaphore: Arc<Semaphore>,
}

/// A connection that may be used until this is dropped.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

/// None was there in time, or too many wait for one already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot;

impl Connections {
    /// A connection, if one is free.
    pub fn at_once(&self, limit: ConnectionLimit) -> Result<Slot, NoSlot> {
        match self.free(limit).try_acquire_owned() {
            Ok(permit) => Ok(Slot(permit)),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(NoSlot),
        }
    }

    /// A connection, as soon as one is free.
    pub async fn wait(&self, limit: ConnectionLimit, most: Duration) -> Result<Slot, NoSlot> {
        if let Ok(slot) = self.at_once(limit) {
            return Ok(slot);
        }
        let _waiting = Waiting::begin(&self.waiting, limit.pending).ok_or(NoSlot)?;
        let free = timeout(most, self.free(limit).acquire_owned());
        let free = free.await.map_err(|_late| NoSlot)?;
        free.map(Slot).map_err(|_closed| NoSlot)
    }

    /// Connections in use, and requests that wait for one.
    pub fn counts(&self) -> (u32, u32) {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = free.as_ref().map_or(0, |free| {
            free.most
                .saturating_sub(free.semaphore.available_permits() as u32)
        });
        (in_use, self.waiting.load(Ordering::Relaxed))
    }

    /// With a new limit, what is in use by the former one does not count any more.
    fn free(&self, limit: ConnectionLimit) -> Arc<Semaphore> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match &*free {
            Some(free) if free.most == limit.most => Arc::clone(&free.semaphore),
            _ => {
                let semaphore = Arc::new(Semaphore::new(limit.most as usize));
                *free = Some(Free {
                    most: limit.most,
                    semaphore: Arc::clone(&semaphore),
                });
                semaphore
            }
        }
    }
}

/// Counts who waits until dropped.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicU32, most: u32) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let this = Self(waiting);
        (before < most).then_some(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        let late = connections.wait(
            ConnectionLimit { most: 1, ..LIMIT },
            Duration::from_millis(1),
        );
        assert!(late.await.is_ok(), "another limit begins anew");
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let connections = Connections::default();
        let limit = ConnectionLimit { most: 1, ..LIMIT };
        let _one = connections.at_once(limit).unwrap();
        let waited = connections.wait(limit, Duration::from_millis(1)).await;
        assert_eq!(waited.err(), Some(NoSlot));
        assert_eq!(connections.counts(), (1, 0));
    }
}
