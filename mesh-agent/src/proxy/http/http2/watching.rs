//! A stream to a server whose packets are stamped.

use std::sync::Arc;

use super::StreamStamps;
use crate::{latency::Nanos, proxy::http::hearing::Hearing};

/// A stream whose packets are stamped, until dropped.
#[derive(Debug)]
pub struct Watching {
    stamps: Arc<StreamStamps>,
    stream: u32,
    since: Nanos,
}

impl Watching {
    /// From now on what is said on `stream` is remembered; `is_whole`: all of the way is stamped.
    pub fn new(stamps: Arc<StreamStamps>, stream: u32, is_whole: bool) -> Self {
        stamps.watch(stream, is_whole);
        Self {
            stamps,
            stream,
            since: Nanos::now(),
        }
    }

    /// What was said before the answer is none of it.
    pub fn forget_interim(&self) {
        self.stamps.forget_interim(self.stream);
    }

    /// What can be heard of it.
    pub fn hearing(&self) -> Hearing {
        Hearing::Stream(Arc::clone(&self.stamps), self.stream)
    }

    /// Since when.
    pub const fn since(&self) -> Nanos {
        self.since
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stamps.forget(self.stream);
    }
}
