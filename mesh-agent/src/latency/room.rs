//! Room to write to a socket that may have stamps in its error queue.
//!
//! Such a stamp makes the socket report EPOLLERR, which the runtime takes for the end of writing, for good: from then on
//! each wait for room would be over at once, and the task that waits would never stop. So another epoll is asked,
//! one of its own that only comes to be when there is no room.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use super::{clock::Nanos, leg::Leg, writable::Writable};

/// How often it is tried where no epoll could be made.
const AGAIN: Duration = Duration::from_millis(10);

/// Whether there is room.
#[derive(Debug, Default)]
pub struct Room {
    is_blocked: AtomicBool,
    blocked: Mutex<Blocked>,
}

/// There is none.
#[derive(Debug, Default)]
struct Blocked {
    waits: Option<Waits>,
    since: Option<Nanos>,
}

/// For what is waited.
#[derive(Debug)]
enum Waits {
    Writable(Box<Writable>),
    /// The process has as many descriptors as it may have: a connection that would have none of its own but for its
    /// stamps is not to end for that.
    Timer(Pin<Box<Sleep>>),
}

impl Waits {
    fn begin(socket: &impl AsFd) -> Self {
        Writable::new(socket).map_or_else(
            |_| Self::Timer(Box::pin(sleep(AGAIN))),
            |writable| Self::Writable(Box::new(writable)),
        )
    }
}

impl Room {
    /// Whether the last write said that there is none.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    /// Something was written on `leg`, or there was no room for it.
    pub fn wrote<T>(&self, written: &io::Result<T>, leg: &Leg) {
        match written {
            Ok(_) if self.is_blocked() => self.unblocked(leg),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_blocked.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// After there was none on `socket`: ready when there may be, or when a stamp has come, which is to be taken then.
    pub fn poll(&self, socket: &impl AsFd, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_blocked.store(true, Ordering::Relaxed);
        let mut blocked = self.blocked();
        blocked.since.get_or_insert_with(Nanos::now);
        match blocked.waits.get_or_insert_with(|| Waits::begin(socket)) {
            Waits::Writable(writable) => writable.poll(context),
            Waits::Timer(timer) => {
                ready!(timer.as_mut().poll(context));
                blocked.waits = None;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// There was room again.
    fn unblocked(&self, leg: &Leg) {
        self.is_blocked.store(false, Ordering::Relaxed);
        let mut blocked = self.blocked();
        // A descriptor only as long as it is needed.
        blocked.waits = None;
        if let Some(since) = blocked.since.take() {
            let now = Nanos::now();
            let took = now.since(since).max(0).cast_unsigned();
            leg.add_blocked(took, now);
        }
    }

    fn blocked(&self) -> MutexGuard<'_, Blocked> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
