//! What a try holds for as long as it is under way.

use std::sync::Arc;

use super::super::destinations::Endpoint;
use crate::policy::retry_budget::{ActiveRequest, FurtherTry};

/// Counts a try as under way until dropped, with its answer's body.
#[derive(Debug)]
pub struct TryGuard {
    endpoint: Arc<Endpoint>,
    /// The request it is for, once it has the answer that the client gets.
    pub request: Option<ActiveRequest>,
    /// Its place in the retry budget, if it is not the first.
    _further: Option<FurtherTry>,
}

impl TryGuard {
    /// A try at `endpoint` begins.
    pub fn new(endpoint: Arc<Endpoint>, further: Option<FurtherTry>) -> Self {
        endpoint.load.begin();
        Self {
            endpoint,
            request: None,
            _further: further,
        }
    }
}

impl Drop for TryGuard {
    fn drop(&mut self) {
        self.endpoint.load.end();
    }
}
