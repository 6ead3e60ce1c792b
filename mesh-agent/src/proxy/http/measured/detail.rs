//! What is told of a measured request beside its stamps.

use http::{Method, Request};

use crate::{latency::TracePath, policy::trace_context::Caller, proxy::http::observed::trace_of};

/// What else is remembered of a request.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) method: Method,
    pub(super) path: TracePath,
    pub(super) trace: Option<Caller>,
}

impl Detail {
    pub(super) fn of<B>(request: &Request<B>) -> Box<Self> {
        Box::new(Self {
            method: request.method().clone(),
            path: request.uri().path().into(),
            trace: trace_of(request.headers()),
        })
    }
}
