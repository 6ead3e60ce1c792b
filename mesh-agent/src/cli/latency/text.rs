//! The bars and tables.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use super::{Answer, Measured, Served, Span};
use crate::{
    admin::latency::FigureTimes,
    cli::{
        output,
        stages::{self, percent, time},
    },
    latency::Stage,
};

/// How wide the text is at most.
const WIDTH: usize = 80;
/// Before a bar: two spaces, the quantile's name, the total.
const BEFORE_BAR: usize = 2 + 5 + 9;

/// How it is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether stages have colours.
    pub colours: bool,
}

impl Style {
    /// Colours on a terminal, unless somebody does not want any (`NO_COLOR`).
    pub fn of_standard_output() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        Self {
            colours: wanted && io::stdout().is_terminal(),
        }
    }
}

/// A quantile that there is a bar or a column of.
type Quantile = (&'static str, fn(&FigureTimes) -> f64);

const QUANTILES: [Quantile; 4] = [
    ("p50", |it| it.p50),
    ("p90", |it| it.p90),
    ("p99", |it| it.p99),
    ("p99.9", |it| it.p999),
];
const P50: Quantile = QUANTILES[0];
const P99: Quantile = QUANTILES[2];

/// Everything that there is to show; by pod and server too if these are `parts`.
pub(super) fn all(answer: &Answer, span: Span, parts: bool, style: Style) -> String {
    let mut text = String::new();
    for destination in &answer.destinations {
        let served = span.of(destination);
        if !served.is_any() {
            continue;
        }
        let _infallible = writeln!(text, "{}", stages::plain(&destination.destination));
        text += &facts(served, span);
        if served.count > 0 {
            text += &figures(served, style);
        } else if served.connections > 0 {
            let row = row("round trip", &served.times, "roundTrip");
            let _infallible = writeln!(text, "{}\n{row}", heads());
        }
        if parts {
            for part in &answer.series {
                text += &one_part(part, span.of(part), style);
            }
        }
        if let Some((stage, share)) = stages::slowest(&stages::at(&served.times, P50.1)) {
            let (name, share) = (stage.name(), percent(share));
            let _infallible = writeln!(text, "  slowest: {name} ({share} of the time at p50)");
        }
        text.push('\n');
    }
    let _infallible = write!(text, "measured: {}\n{}", sampling(answer), stamps(answer));
    text
}

/// How much is measured, in words.
pub(super) fn sampling(answer: &Answer) -> String {
    let share = match answer.sample {
        1.0.. => "every request".to_owned(),
        share if share > 0.0 => format!("1 request in {}", (1.0 / share).round()),
        _ => "only requests that are asked for".to_owned(),
    };
    let most = answer.most_per_second;
    format!("{share}, at most {most} a second for each destination")
}

fn stamps(answer: &Answer) -> String {
    let counts = answer.stamps;
    let mut text = format!("stamps: {} matched", counts.matched);
    for (count, what) in [
        (counts.again, "of segments sent again"),
        (counts.unmatched, "unmatched"),
    ] {
        if count > 0 {
            let _infallible = write!(text, ", {count} {what}");
        }
    }
    let _infallible = write!(text, "; {} requests measured", counts.measured);
    if counts.unfinished > 0 {
        let _infallible = write!(text, ", {} of them never answered", counts.unfinished);
    }
    text
}

/// What the figures are of.
fn facts(served: &Served, span: Span) -> String {
    let plural = |count| if count == 1 { "" } else { "s" };
    let mut text = String::new();
    if served.connections > 0 {
        let (count, plural) = (served.connections, plural(served.connections));
        let when = span.words();
        let what = format!("look{plural} at connections without requests {when}");
        let _infallible = writeln!(text, "  {count} {what}");
    }
    if !served.are_requests() {
        return format!("{text}  retransmits: {}\n", served.retransmits);
    }
    let (count, plural) = (served.count, plural(served.count));
    let _infallible = writeln!(text, "  {count} request{plural} measured {}", span.words());
    let sources: Vec<String> = served
        .sources
        .iter()
        .map(|(source, count)| format!("{source} {count}"))
        .collect();
    let _infallible = writeln!(
        text,
        "  stamps from: {}; retransmits: {}",
        output::list(&sources),
        served.retransmits
    );
    for (count, why) in [
        (served.overlapping, "were answered before they had ended"),
        (
            served.inconsistent,
            "have stamps that cannot be (was the clock set?)",
        ),
    ] {
        if count > 0 {
            let _infallible = writeln!(text, "  {count} more gave no figures: they {why}");
        }
    }
    text
}

fn figures(served: &Served, style: Style) -> String {
    let times = &served.times;
    let mut text = String::new();
    for (name, quantile) in [P50, P99] {
        let total = times.get("total").map_or(0.0, quantile);
        let bar = bar(&stages::at(times, quantile), WIDTH - BEFORE_BAR, style);
        let _infallible = writeln!(text, "  {name:<5}{:<9}{bar}", time(total));
    }
    let p50 = stages::at(times, P50.1);
    let p99 = stages::at(times, P99.1);
    text += &legend(&p50, &p99, style);
    let _infallible = writeln!(text, "{}{:>8}", heads(), "SHARE");
    let sum: f64 = p50.iter().sum();
    for (stage, value) in Stage::ALL.into_iter().zip(p50) {
        let share = percent(if sum > 0.0 { value / sum } else { 0.0 });
        let _infallible = writeln!(text, "{}{share:>8}", row(stage.name(), times, stage.name()));
    }
    for (name, key) in [("total", "total"), ("round trip", "roundTrip")] {
        if times.contains_key(key) {
            let _infallible = writeln!(text, "{}", row(name, times, key));
        }
    }
    text
}

fn heads() -> String {
    let heads = QUANTILES.map(|(name, _)| format!("{name:>9}")).concat();
    format!("  {:<11}{heads}", "STAGE")
}

fn row(name: &str, times: &BTreeMap<String, FigureTimes>, key: &str) -> String {
    let times = times.get(key).copied().unwrap_or_default();
    let cells = QUANTILES.map(|(_, quantile)| format!("{:>9}", time(quantile(&times))));
    format!("  {name:<11}{}", cells.concat())
}

/// How wide the bar of one pod and server is.
const PART: usize = 40;

/// One pod and server.
fn one_part(part: &Measured, served: &Served, style: Style) -> String {
    if served.count == 0 {
        return one_part_without_requests(part, served);
    }
    let pod = part.pod.as_deref().unwrap_or("-");
    let server = part
        .endpoint
        .map_or_else(|| "-".to_owned(), |it| it.to_string());
    let of = |key: &str, quantile: fn(&FigureTimes) -> f64| {
        served
            .times
            .get(key)
            .map_or_else(|| "-".to_owned(), |it| time(quantile(it)))
    };
    let values = stages::at(&served.times, P50.1);
    let slowest = stages::slowest(&values);
    let slowest = slowest.map(|(stage, share)| format!("{} {}", stage.name(), percent(share)));
    format!(
        "  {} → {server}\n    {} {}\n    {} measured: p50 {}, p99 {}, round trip {}, retransmits {}\n",
        stages::plain(pod),
        bar(&values, PART, style),
        slowest.unwrap_or_default(),
        served.count,
        of("total", P50.1),
        of("total", P99.1),
        of("roundTrip", P50.1),
        served.retransmits,
    )
}

/// The same of one that carries none.
fn one_part_without_requests(part: &Measured, served: &Served) -> String {
    let (Some(times), Some(server)) = (served.times.get("roundTrip"), part.endpoint) else {
        return String::new();
    };
    let pod = stages::plain(part.pod.as_deref().unwrap_or("-"));
    let (p50, p99) = (time(times.p50), time(times.p99));
    let retransmits = served.retransmits;
    format!("  {pod} → {server}\n    round trip p50 {p50}, p99 {p99}, retransmits {retransmits}\n")
}

/// Stages side by side, `width` cells in all.
pub fn bar(values: &[f64; Stage::ALL.len()], width: usize, style: Style) -> String {
    let cells = stages::split(values, width);
    let parts = Stage::ALL
        .into_iter()
        .zip(cells)
        .filter(|(_, cells)| *cells > 0);
    let parts = parts.map(|(stage, cells)| {
        let fill: String = std::iter::repeat_n(stages::look(stage).fill, cells).collect();
        coloured(&fill, stage, style)
    });
    parts.collect()
}

/// What the characters of the bars stand for, as far as they are there, the longest first.
fn legend(p50: &[f64; Stage::ALL.len()], p99: &[f64; Stage::ALL.len()], style: Style) -> String {
    let drawn = [p50, p99].map(|values| stages::split(values, WIDTH - BEFORE_BAR));
    let sum: f64 = p50.iter().sum();
    let mut shown: Vec<(f64, Stage)> = Stage::ALL
        .into_iter()
        .enumerate()
        .filter(|(index, _)| drawn.iter().any(|cells| cells[*index] > 0))
        .map(|(index, stage)| (p50[index] / sum.max(f64::MIN_POSITIVE), stage))
        .collect();
    shown.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    // Wrapped by what is seen: colours take no room.
    let indent = " ".repeat(BEFORE_BAR);
    let (mut text, mut column) = (indent.clone(), BEFORE_BAR);
    for (share, stage) in shown {
        let name = format!("{} {}", stage.name(), percent(share));
        let width = name.chars().count() + 4;
        if column + width > WIDTH + 2 {
            text.truncate(text.trim_end().len());
            let _infallible = write!(text, "\n{indent}");
            column = BEFORE_BAR;
        }
        let mark = coloured(&stages::look(stage).fill.to_string(), stage, style);
        let _infallible = write!(text, "{mark} {name}  ");
        column += width;
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn coloured(text: &str, stage: Stage, style: Style) -> String {
    if !style.colours {
        return text.to_owned();
    }
    // The first eight, then the bright ones (ECMA-48, and its usual extension).
    let code = match stages::look(stage).colour {
        normal @ 0..=7 => 30 + normal,
        bright => 82 + bright,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests;
