//! HTTP/2 connections to servers: one per server and pod, shared by all requests.

mod connection;
mod exchanged;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{ConnectError, Key};
use crate::proxy::PodProxy;

pub use connection::{Shared, speak};
pub use exchanged::{Answer, SendError, send};

/// The connection to each server.
#[derive(Debug, Default)]
pub struct Pool(Mutex<HashMap<Key, Arc<Slot>>>);

/// The connection to one server. Locked while it is made, so that requests that come meanwhile wait for
/// the same one.
#[derive(Debug, Default)]
struct Slot(tokio::sync::Mutex<Option<Shared>>);

impl Pool {
    /// The connection to a server, made if there is none.
    pub async fn connection(
        &self,
        pod: &Arc<PodProxy>,
        key: Key,
        within: Duration,
    ) -> Result<Shared, ConnectError> {
        let slot = Arc::clone(self.lock().entry(key).or_default());
        let mut slot = slot.0.lock().await;
        if let Some(shared) = slot.as_ref().filter(|shared| shared.is_usable()) {
            return Ok(shared.clone());
        }
        *slot = None;
        let shared = Box::pin(connection::connect(pod, key, within)).await?;
        *slot = Some(shared.clone());
        Ok(shared)
    }

    /// Forgets connections that have ended.
    pub fn sweep(&self) {
        self.lock().retain(|_, slot| {
            let slot = slot.0.try_lock();
            slot.map_or(true, |slot| slot.as_ref().is_some_and(Shared::is_usable))
        });
    }

    /// Lets the connection with this key end with the requests that are under way on it.
    pub fn forget(&self, key: Key) {
        self.lock().remove(&key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
