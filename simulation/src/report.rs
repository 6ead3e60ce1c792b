//! What was seen, as tables and files.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    measure::{Measured, ratio},
    scenario::{AFFECTED, BEGIN, Scenario, capacity},
    strategy::Strategy,
};

/// Ten seconds after it ended.
const AFTER: Duration = Duration::from_secs(10);
/// When everything has settled.
const SETTLED: Duration = Duration::from_secs(5);

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Share of useful answers before it went wrong.
    pub before: f64,
    /// Share of useful answers while it was wrong.
    pub during: f64,
    /// Useful answers a second while it was wrong, once that had settled, as a share of what the servers can do;
    /// `None` if it was over before.
    pub of_capacity: Option<f64>,
    /// Share of useful answers to critical requests meanwhile.
    pub critical: f64,
    /// Seconds until the share of useful answers was 95% of what it was before.
    pub recovered: Option<u64>,
    /// Tries for each request, while it was wrong and for 10 s after that.
    pub amplification: f64,
    /// Of useful answers meanwhile, in milliseconds.
    pub p50: f64,
    /// The same.
    pub p99: f64,
}

impl Figures {
    /// Those of a run.
    pub fn of(scenario: Scenario, measured: &Measured) -> Self {
        let end = scenario.end();
        let before = measured.between(SETTLED, BEGIN);
        let before = ratio(before.good, before.asked);
        let during = measured.between(BEGIN, end);
        let settled = measured.between(BEGIN + SETTLED, end);
        let length = end.saturating_sub(BEGIN + SETTLED).as_secs_f64();
        let with_after = measured.between(BEGIN, end + AFTER);
        let ms = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            before,
            during: ratio(during.good, during.asked),
            of_capacity: (length > 0.0)
                .then(|| f64::from(settled.good) / length / (capacity() * AFFECTED as f64)),
            critical: ratio(during.critical_good, during.critical),
            recovered: measured.recovered_after(end, before, 0.95),
            amplification: f64::from(with_after.tries) / f64::from(with_after.asked.max(1)),
            p50: ms(0.5),
            p99: ms(0.99),
        }
    }
}

/// The line of a run in the table.
pub fn line(scenario: Scenario, strategy: Strategy, figures: &Figures) -> String {
    let Figures {
        before,
        during,
        of_capacity,
        critical,
        recovered,
        amplification,
        p50,
        p99,
    } = figures;
    let of_capacity =
        of_capacity.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0));
    let recovered = recovered.map_or_else(|| "never".to_owned(), |after| format!("{after} s"));
    format!(
        "| {} | {} | {:.1}% | {:.1}% | {of_capacity} | {:.1}% | {recovered} | {amplification:.2} | {p50:.0} | {p99:.0} |",
        scenario.name(),
        strategy.name(),
        before * 100.0,
        during * 100.0,
        critical * 100.0,
    )
}

/// What the columns of the table are.
pub const HEAD: &str = "\
| scenario | clients have | useful before | during | of capacity | critical | back to 95% after | tries per request | p50 ms | p99 ms |
|---|---|---|---|---|---|---|---|---|---|";

/// Writes what was seen, second by second.
pub fn csv(file: &Path, runs: &[(Strategy, Measured)]) -> Result<()> {
    let mut text = "strategy,second,asked,useful,critical,critical_useful,tries\n".to_owned();
    for (strategy, measured) in runs {
        for (at, second) in measured.seconds.iter().enumerate() {
            let name = strategy.name();
            writeln!(
                text,
                "{name},{at},{},{},{},{},{}",
                second.asked, second.good, second.critical, second.critical_good, second.tries
            )?;
        }
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
