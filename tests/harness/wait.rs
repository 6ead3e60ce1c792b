//! Waiting for a condition, with a bound.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `probe` gives a value; fails with `what` when `bound` has passed.
pub fn wait_for<T>(
    bound: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
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
