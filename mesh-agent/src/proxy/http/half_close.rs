//! Tells a client that has gone from one that has only closed its half.
//!
//! Both look the same until something is written to them. A client that has gone leaves work behind that
//! nobody waits for, and that keeps others out where there are limits; one that closed its half is to get its
//! answer. So a client that closes while its request is under way has gone if no answer begins within a
//! moment. Nginx and Envoy do not wait at all.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::latency::StampedStream;

/// How long an answer may take to begin after its client closed.
const MOMENT: Duration = Duration::from_secs(1);

/// Whether a request of a connection is under way, until its answer has been taken.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<AtomicBool>);

/// A request under way, until dropped.
#[derive(Debug)]
pub struct Underway(Busy);

impl Busy {
    /// A request begins.
    pub fn begin(&self) -> Underway {
        self.0.store(true, Ordering::Relaxed);
        Underway(self.clone())
    }

    /// Whether one is under way.
    pub fn is_busy(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// What a client does whose request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It has gone.
    Gone,
    /// It waits: who looked is woken when that changes.
    IsThere,
    /// It sends the next request already: nobody is woken, that is for whoever is done with this one.
    Speaks,
}

/// Watches a client whose request is under way.
#[derive(Debug, Default)]
pub enum Watch {
    /// It has not closed.
    #[default]
    Open,
    /// It has.
    Closed(Pin<Box<Sleep>>),
    /// It has, and something was written since: if it has gone, its system says so.
    Answered,
}

impl Watch {
    /// Looks whether the client has gone. What it sends is left where it is. With `is_answered`, something of its
    /// answer was written already.
    pub fn look(
        &mut self,
        client: &StampedStream,
        is_answered: bool,
        context: &mut Context<'_>,
    ) -> Client {
        if matches!(self, Self::Open) {
            match client.poll_peek(context) {
                Poll::Pending => return Client::IsThere,
                Poll::Ready(Ok(0)) if is_answered => *self = Self::Answered,
                Poll::Ready(Ok(0)) => *self = Self::Closed(Box::pin(sleep(MOMENT))),
                Poll::Ready(Ok(_)) => return Client::Speaks,
                Poll::Ready(Err(_reset)) => return Client::Gone,
            }
        }
        if let Self::Closed(moment) = self
            && moment.as_mut().poll(context).is_ready()
        {
            return Client::Gone;
        }
        Client::IsThere
    }

    /// Something was written to the client.
    pub fn wrote(&mut self) {
        if matches!(self, Self::Closed(_)) {
            *self = Self::Answered;
        }
    }
}
