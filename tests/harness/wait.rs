//! Waiting for a condition, with a bound.

use std::env;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// How many times slower this machine is than those that bounds are meant for: `MESH_TIMEOUT_FACTOR`, else 1.
static TIMEOUT_FACTOR: LazyLock<u32> = LazyLock::new(|| {
    env::var("MESH_TIMEOUT_FACTOR").map_or(1, |factor| {
        factor
            .parse()
            .unwrap_or_else(|error| panic!("MESH_TIMEOUT_FACTOR={factor}: {error}"))
    })
});

/// A bound as it is on this machine.
pub fn on_this_machine(bound: Duration) -> Duration {
    bound * *TIMEOUT_FACTOR
}

/// Waits until `probe` gives a value; fails with `what` when `bound`, on a machine of ordinary speed, has passed.
pub fn wait_for<T>(
    bound: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let bound = on_this_machine(bound);
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() >= bound {
            bail!("waited {bound:?} in vain for {what}");
        }
        thread::sleep(POLL);
    }
}

/// Waits until `probe` is true; fails with `what` when `bound` has passed.
pub fn wait_until(
    bound: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(bound, what, || Ok(probe()?.then_some(())))
}
