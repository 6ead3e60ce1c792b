//! How much of the machine other processes took during the run: a reason to distrust it.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Share of all processors above which ratios are no longer worth much.
pub const TOO_MUCH: f64 = 0.1;
/// Kernel clock ticks per second as user space sees them, on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// A watch on everything outside one cgroup.
pub struct Disturbance {
    cgroup: PathBuf,
    begun: Usage,
}

/// CPU seconds since boot.
#[derive(Clone, Copy)]
struct Usage {
    /// Of all processors, idle or not.
    capacity: f64,
    /// Of which something ran.
    busy: f64,
    /// Of which something in the cgroup ran.
    inside: f64,
}

impl Disturbance {
    /// Starts to watch.
    pub fn watch(cgroup: &Path) -> Result<Self> {
        Ok(Self {
            cgroup: cgroup.to_owned(),
            begun: usage(cgroup)?,
        })
    }

    /// The share of all processors that was taken by others since the start, from 0 to 1. Kernel
    /// threads that work for the lab count as others; they stay below a few percent.
    pub fn share(&self) -> Result<f64> {
        let (begun, now) = (self.begun, usage(&self.cgroup)?);
        let others = (now.busy - begun.busy) - (now.inside - begun.inside);
        let capacity = now.capacity - begun.capacity;
        Ok(if capacity > 0.0 {
            (others / capacity).clamp(0.0, 1.0)
        } else {
            0.0
        })
    }
}

fn usage(cgroup: &Path) -> Result<Usage> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    // user nice system idle iowait irq softirq steal; what follows is contained in user and nice.
    let ticks: Vec<f64> = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .context("unexpected /proc/stat")?
        .split_whitespace()
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let capacity = ticks.iter().sum::<f64>() / TICKS_PER_SECOND;
    let idle = ticks.iter().skip(3).take(2).sum::<f64>() / TICKS_PER_SECOND;
    let file = cgroup.join("cpu.stat");
    let stat =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let inside: f64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))
        .and_then(|number| number.parse().ok())
        .context("no usage_usec in cpu.stat")?;
    Ok(Usage {
        capacity,
        busy: capacity - idle,
        inside: inside / 1e6,
    })
}
