//! What a try holds for as long as it is under way.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Frame;

use super::super::{
    destinations::Endpoint,
    overload::Turn,
    protection::{Admitted, Slot},
};
use super::{body::BoxError, running::grpc_status};
use crate::policy::retry_budget::{ActiveRequest, FurtherTry};

/// Counts a try as under way until dropped, with its answer's body.
#[derive(Debug)]
pub struct TryGuard {
    endpoint: Arc<Endpoint>,
    /// The request it is for, once it has the answer that the client gets.
    pub request: Option<ActiveRequest>,
    /// That it was let through, likewise.
    pub admitted: Option<Admitted>,
    /// That the pod's server works on it, likewise.
    pub turn: Option<Turn>,
    /// Its place in the retry budget, if it is not the first.
    _further: Option<FurtherTry>,
    /// Its connection, where these are limited.
    _slot: Option<Slot>,
}

impl TryGuard {
    /// A try at `endpoint` begins.
    pub fn new(endpoint: Arc<Endpoint>, further: Option<FurtherTry>, slot: Option<Slot>) -> Self {
        endpoint.load.begin();
        Self {
            endpoint,
            request: None,
            admitted: None,
            turn: None,
            _further: further,
            _slot: slot,
        }
    }
}

impl TryGuard {
    /// It carries something else from now on: its place among requests is free, that among connections is not.
    pub fn no_request(&mut self) {
        self.request = None;
        self.turn = None;
    }

    /// What comes of its answer's body; `None` is the end.
    pub fn saw(&mut self, frame: Option<&Result<Frame<Bytes>, BoxError>>) {
        let Some(admitted) = &mut self.admitted else {
            return;
        };
        match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    admitted.trailers(grpc_status(trailers));
                }
            }
            Some(Err(_)) | None => admitted.trailers(None),
        }
    }
}

impl Drop for TryGuard {
    fn drop(&mut self) {
        self.endpoint.load.end();
    }
}
