//! h2load, which speaks both protocols, and what the kernel says of the proxy meanwhile.

use super::Protocol;
use crate::bench::cpu_time;
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// What is spoken.
    pub protocol: Protocol,
    large: bool,
    connections: u32,
    /// Requests per second in all; as many as there can be without.
    rate: Option<u32>,
}

/// Requests per second for response times: well below what any of them can do.
const FIXED_RATE: u32 = 2_000;

impl Load {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let mut loads = Vec::new();
        for protocol in Protocol::ALL {
            for large in [false, true] {
                for connections in [1, 64] {
                    loads.push(Self {
                        protocol,
                        large,
                        connections,
                        rate: None,
                    });
                }
            }
            loads.push(Self {
                protocol,
                large: false,
                connections: 8,
                rate: Some(FIXED_RATE),
            });
        }
        loads
    }

    /// Whether response times are what counts.
    pub fn is_fixed_rate(self) -> bool {
        self.rate.is_some()
    }

    /// Its name in the table.
    pub fn name(self) -> String {
        let size = if self.large { "64 KiB" } else { "1 KiB" };
        let (protocol, connections) = (self.protocol.name(), self.connections);
        match self.rate {
            Some(rate) => format!("{protocol}, {size}, {rate} requests/s"),
            None if connections == 1 => format!("{protocol}, {size}, 1 connection"),
            None => format!("{protocol}, {size}, {connections} connections"),
        }
    }

    /// The file that is asked for.
    pub fn page(self) -> &'static str {
        if self.large { "large" } else { "small" }
    }

    /// Runs `generator` (h2load) for `length`; `process` is the proxy. Response times go to `log`.
    pub fn run(
        self,
        mut generator: Command,
        url: &str,
        process: Option<u32>,
        length: Duration,
        log: &Path,
    ) -> Result<Measured> {
        fs::write(log, "").context("cannot create a file")?;
        // The generator is another user.
        fs::set_permissions(log, Permissions::from_mode(0o666))
            .context("cannot open a file to all")?;
        generator.args(["-t1", "-m1", &format!("-D{}", length.as_secs())]);
        generator.arg(format!("-c{}", self.connections));
        if self.protocol == Protocol::Http1 {
            generator.arg("--h1");
        }
        if let Some(rate) = self.rate {
            generator.arg(format!("--rps={}", rate / self.connections));
            generator.arg(format!("--log-file={}", log.display()));
        }
        let before = process.map(cpu_time::of_group).transpose()?;
        let output = generator.arg(url).output().context("cannot start h2load")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let after = process.map(cpu_time::of_group).transpose()?;
        ensure!(
            output.status.success(),
            "h2load: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let count = |label: &str| -> Result<f64> {
            let line = text.lines().find(|line| line.starts_with("requests:"));
            let part = line.and_then(|line| line.split([',', ':']).find(|it| it.ends_with(label)));
            let word = part.and_then(|part| part.split_whitespace().next());
            word.and_then(|word| word.parse().ok())
                .with_context(|| format!("h2load says no {label:?}: {text}"))
        };
        let done = count(" succeeded")?;
        let failed = count(" failed")? + count(" errored")? + count(" timeout")?;
        ensure!(
            done > 0.0 && failed == 0.0,
            "{failed} requests failed, {done} did not: {text}"
        );
        let times = fs::read_to_string(log).context("cannot read the response times")?;
        let mut times: Vec<f64> = times
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2)?.parse().ok())
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied();
        Ok(Measured {
            rate: done / length.as_secs_f64(),
            cpu: before
                .zip(after)
                .map(|(before, after)| (after - before) / done * 1e6),
            times: at(0.5).zip(at(0.99)),
        })
    }
}

/// The outcome of one run.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Requests per second.
    pub rate: f64,
    /// CPU time of the proxy per request, in microseconds.
    pub cpu: Option<f64>,
    /// Median and 99th percentile of response times, in microseconds.
    pub times: Option<(f64, f64)>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.0} requests/s", self.rate)?;
        if let Some(cpu) = self.cpu {
            write!(f, ", {cpu:.1} µs CPU each")?;
        }
        if let Some((median, high)) = self.times {
            write!(f, ", p50 {median:.0} µs, p99 {high:.0} µs")?;
        }
        Ok(())
    }
}

/// The most memory that a process has had, in MiB.
pub fn peak_memory(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kibibytes.context("no VmHWM")? / 1024.0)
}
