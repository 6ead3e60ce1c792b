//! The CPU time of processes, to the nanosecond: /proc tells it in hundredths of a second, which is a hundredth of a run.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::{Pid, getpgid},
};

/// Seconds that a process has used, both in user space and in the kernel for it, its threads that have ended included.
pub fn of_process(process: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed()));
    let time = clock.and_then(ClockId::now);
    let time = time.context("the process has ended")?;
    Ok(Duration::from(time).as_secs_f64())
}

/// The same of all processes of the group that `leader` leads.
pub fn of_group(leader: u32) -> Result<f64> {
    let leader = Pid::from_raw(leader.cast_signed());
    let mut total = 0.0;
    let mut is_any = false;
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let group = getpgid(Some(Pid::from_raw(process.cast_signed())));
        // Others may end at any time.
        if group == Ok(leader)
            && let Ok(time) = of_process(process)
        {
            total += time;
            is_any = true;
        }
    }
    ensure!(is_any, "the proxy has ended");
    Ok(total)
}
