//! The threads that carry connections: one for each processor, each with a scheduler of its own.
//!
//! A connection stays on its thread from accept to its end, and so do the connections to servers that it
//! uses. A scheduler that moves tasks between threads costs a wake-up for nearly every request: measured
//! with one HTTP connection under load, it took 79 µs of the agent's CPU time per request, and a
//! scheduler for each thread 44 µs (`docs/benchmarks.md`).

use std::{
    cell::Cell,
    future::pending,
    num::NonZeroUsize,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle};

static WORKERS: LazyLock<Box<[Worker]>> = LazyLock::new(|| (0..count()).map(start).collect());

thread_local! {
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

struct Worker {
    runtime: Handle,
    /// Connections that it carries.
    connections: AtomicUsize,
}

/// How many there are.
pub fn count() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Which of them this thread is; 0 on any other.
pub fn here() -> usize {
    if_here().unwrap_or_default()
}

/// Which of them this thread is, if it is one.
pub fn if_here() -> Option<usize> {
    HERE.get()
}

/// The schedulers in turn, for tasks that go on as long as the agent does.
pub fn in_turn() -> Handle {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    WORKERS[next % WORKERS.len()].runtime.clone()
}

/// Carries a connection on the thread that has the fewest; on this one, if others have no fewer.
pub fn carry(connection: impl Future<Output = ()> + Send + 'static) {
    let load = |index: usize| WORKERS[index].connections.load(Ordering::Relaxed);
    let here = here();
    let index = (0..WORKERS.len())
        .min_by_key(|index| (load(*index), *index != here))
        .unwrap_or_default();
    let load = Load::begin(&WORKERS[index].connections);
    WORKERS[index].runtime.spawn(async move {
        connection.await;
        drop(load);
    });
}

/// A connection that counts for its worker, until dropped.
struct Load(&'static AtomicUsize);

impl Load {
    fn begin(connections: &'static AtomicUsize) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(connections)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn start(index: usize) -> Worker {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("cannot start a scheduler: {error}"));
    let handle = runtime.handle().clone();
    let run = move || {
        HERE.set(Some(index));
        runtime.block_on(pending::<()>());
    };
    let thread = thread::Builder::new().name(format!("worker-{index}"));
    if let Err(error) = thread.spawn(run) {
        panic!("cannot start a thread: {error}");
    }
    Worker {
        runtime: handle,
        connections: AtomicUsize::new(0),
    }
}

/// What `future` comes to as a task of a worker of its own, where no other test has a say.
#[cfg(test)]
pub fn on_another<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let run = || {
        HERE.set(Some(usize::MAX));
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime
            .unwrap()
            .block_on(async { tokio::spawn(future).await.unwrap() })
    };
    thread::spawn(run).join().unwrap()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn connections_are_spread_over_the_threads() {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..2 * count() {
            let sender = sender.clone();
            carry(async move {
                let _gone = sender.send(here());
                pending::<()>().await;
            });
        }
        let mut seen: Vec<usize> = (0..2 * count())
            .filter_map(|_| receiver.recv().ok())
            .collect();
        seen.sort_unstable();
        let expected: Vec<usize> = (0..count()).flat_map(|index| [index, index]).collect();
        assert_eq!(seen, expected);
    }
}
