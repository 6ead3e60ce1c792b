//! Timers of what hardly ever takes too long.
//!
//! A timer of the runtime that is to go off before all others wakes the runtime up, lest it waits for longer
//! (`Handle::reregister` of tokio's src/runtime/time/mod.rs), although it is the runtime's own thread that sets it: a
//! system call and a turn of the event loop more. Where few requests are under way that is each of them. So a
//! timer that was not needed stays set, for the next who wants one. That one it may wake too early, which is once in a
//! timeout instead of once in a request.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    task::{coop::unconstrained, yield_now},
    time::{Instant, Sleep, sleep_until},
};

use super::workers;
use crate::policy::deadline::Deadline;

/// Most timers that a thread keeps set.
const MOST_KEPT: usize = 32;
/// One that goes off sooner is not: it would do so before there is another request, as a rule, for a turn of the event
/// loop of its own.
const LEAST_LEFT: Duration = Duration::from_millis(100);

thread_local! {
    static KEPT: RefCell<Vec<Pin<Box<Sleep>>>> = const { RefCell::new(Vec::new()) };
}

/// It took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// A timer that costs nothing before it is waited for, and little then.
#[derive(Debug)]
pub struct Timer {
    until: Instant,
    /// Set for `until` or an earlier time; with the thread whose runtime has it, if that keeps timers.
    set: Option<(Pin<Box<Sleep>>, Option<usize>)>,
}

impl Timer {
    /// One that goes off at `until`.
    pub const fn new(until: Instant) -> Self {
        Self { until, set: None }
    }

    /// It is to go off at `until` instead.
    pub const fn reset(&mut self, until: Instant) {
        self.until = until;
    }

    /// Ready when it has gone off.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.until;
        let (sleep, _) = self.set.get_or_insert_with(|| {
            let here = workers::if_here();
            let kept = here.and_then(|_| KEPT.with_borrow_mut(Vec::pop));
            (kept.unwrap_or_else(|| Box::pin(sleep_until(until))), here)
        });
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        while poll(sleep, context).is_ready() {
            if sleep.deadline() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some((mut sleep, Some(home))) = self.set.take() else {
            return;
        };
        if workers::if_here() != Some(home) {
            return;
        }
        // Nobody is to be woken by it, nor kept for it.
        let mut nobody = Context::from_waker(Waker::noop());
        let is_long = sleep.deadline() >= Instant::now() + LEAST_LEFT;
        if !is_long || poll(&mut sleep, &mut nobody).is_ready() {
            return;
        }
        // At the end of a thread there is no place for it any more.
        let _ended = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MOST_KEPT {
                kept.push(sleep);
            }
        });
    }
}

/// What uses up its task's share of a turn is to be late, too.
fn poll(sleep: &mut Pin<Box<Sleep>>, context: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(sleep.as_mut())).poll(context)
}

/// What `future` comes to, unless it takes until `deadline`. It is pinned by the caller: here it would take its place
/// twice. If this thread was late itself, what came meanwhile has its turn before it is given up: that is not the fault of
/// who is waited for.
pub async fn within<F: Future>(
    deadline: Deadline,
    mut future: Pin<&mut F>,
) -> Result<F::Output, Late> {
    let mut timer = deadline.at().map(|at| Timer::new(at.into()));
    let mut last_turn = pin!(yield_now());
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        let is_late = timer
            .as_mut()
            .is_some_and(|timer| timer.poll(context).is_ready());
        if is_late {
            last_turn.as_mut().poll(context).map(|()| Err(Late))
        } else {
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests;
