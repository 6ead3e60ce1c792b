//! One destination: its stages with quantiles, and the last requests.

use std::{collections::BTreeMap, fmt::Write as _};

use ratatui::{
    Frame,
    layout::Rect,
    style::Stylize,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    frame::{alarm, bar, colour, padded, short},
    overview::rate,
    snapshot::Snapshot,
    view::View,
};
use crate::{
    admin::{
        latency::{FigureTimes, Served, Trace},
        model::{Breaker, Destination},
    },
    cli::{
        output,
        stages::{self, look, percent, time},
    },
    latency::Stage,
};

/// A quantile, and how it is read.
type Quantile = (&'static str, fn(&FigureTimes) -> f64);

const QUANTILES: [Quantile; 4] = [
    ("P50", |it| it.p50),
    ("P90", |it| it.p90),
    ("P99", |it| it.p99),
    ("P99.9", |it| it.p999),
];

/// Draws the destination `name`.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &View, name: &str) {
    let Some(last) = &view.last else { return };
    let mut all = last.destinations.iter();
    let Some(destination) = all.find(|it| it.name == name) else {
        return;
    };
    let width = usize::from(area.width);
    let mut lines = vec![head(view, destination, width)];
    lines.extend(destination.breaker.as_ref().map(|it| breaker(it, width)));
    let none = Served::default();
    let served = last.measured(name).map_or(&none, |it| &it.recent);
    if served.count == 0 {
        lines.push(Line::from(" Nothing was measured in the last minute.").dim());
    } else {
        lines.extend(stages_of(&served.times, width));
        lines.push(beside(served));
    }
    lines.extend(last_requests(last, width));
    if view.gone.is_some() {
        lines = lines.into_iter().map(Stylize::dim).collect();
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn head(view: &View, it: &Destination, width: usize) -> Line<'static> {
    let rates = view.rates.get(&it.name);
    let rate = rates.map_or_else(|| "-".to_owned(), |it| rate(it.all));
    let own: u64 = it.own_answers.values().sum();
    let failed: u64 = it.endpoints.iter().map(|it| it.failed).sum();
    let facts = format!(
        "  {rate}/s · {} active · {} retries · {failed} failed tries · {own} own",
        it.active, it.retries,
    );
    let room = width.saturating_sub(facts.chars().count() + 1).max(8);
    vec![
        Span::raw(" "),
        short(&it.name, room).bold(),
        Span::raw(facts),
    ]
    .into()
}

fn breaker(breaker: &Breaker, width: usize) -> Line<'static> {
    let mut text = format!(
        " breaker {}: {} of {} calls failed, {} slow",
        breaker.state, breaker.failed, breaker.calls, breaker.slow
    );
    if let Some(why) = &breaker.why {
        let _infallible = write!(text, "; opened last: {why}");
    }
    if let Some(left) = breaker.probe_in_seconds {
        let _infallible = write!(text, "; probe in {}", output::seconds(left));
    }
    Line::styled(short(&text, width), alarm(breaker.state != "closed"))
}

/// A line for each stage: its character, quantiles, and its share as a bar of its own.
fn stages_of(times: &BTreeMap<String, FigureTimes>, width: usize) -> Vec<Line<'static>> {
    const BEFORE: usize = 2 + 11 + 4 * 9 + 6 + 1;
    let p50 = stages::at(times, |it| it.p50);
    let sum: f64 = p50.iter().sum();
    let heads = QUANTILES.map(|(name, _)| format!("{name:>9}")).concat();
    let mut lines = vec![Line::from(format!("  {:<11}{heads}{:>6}", "STAGE", "SHARE")).dim()];
    let cells = |key: &str| {
        let times = times.get(key).copied().unwrap_or_default();
        QUANTILES
            .map(|(_, quantile)| format!("{:>9}", time(quantile(&times))))
            .concat()
    };
    for (stage, value) in Stage::ALL.into_iter().zip(p50) {
        let share = if sum > 0.0 { value / sum } else { 0.0 };
        let room = width.saturating_sub(BEFORE);
        let fill = look(stage).fill;
        let filled: String =
            std::iter::repeat_n(fill, (share * room as f64).round() as usize).collect();
        lines.push(Line::from(vec![
            Span::styled(format!("{fill} "), colour(stage)),
            Span::raw(format!(
                "{:<11}{}{:>6} ",
                stage.name(),
                cells(stage.name()),
                percent(share)
            )),
            Span::styled(filled, colour(stage)),
        ]));
    }
    lines.push(Line::from(format!("  {:<11}{}", "total", cells("total"))).bold());
    if times.contains_key("roundTrip") {
        lines.push(Line::from(format!(
            "  {:<11}{}",
            "round trip",
            cells("roundTrip")
        )));
    }
    lines
}

fn beside(served: &Served) -> Line<'static> {
    let sources: Vec<String> = served
        .sources
        .iter()
        .map(|(source, count)| format!("{source} {count}"))
        .collect();
    let text = format!(
        "  {} measured · stamps from {} · {} retransmits",
        served.count,
        output::list(&sources),
        served.retransmits
    );
    Line::from(text).dim()
}

fn last_requests(last: &Snapshot, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from("  LAST REQUESTS").dim()];
    if last.traces.is_empty() {
        lines.push(Line::from("  none").dim());
    }
    lines.extend(last.traces.iter().map(|it| request(it, last.clock, width)));
    lines
}

/// When, what, how it was answered, how long it took and where that went.
fn request(trace: &Trace, now: f64, width: usize) -> Line<'static> {
    const BAR: usize = 20;
    const OTHERS: usize = 2 + 7 + 4 + 8 + 1 + BAR + 1;
    let what = format!("{} {}", trace.method, trace.path);
    let ago = output::seconds((now - trace.began).max(0.0));
    let total = trace.total.map_or_else(|| "-".to_owned(), time);
    let status = match trace.status {
        0 => "-".to_owned(),
        status => status.to_string(),
    };
    let values = Stage::ALL.map(|stage| trace.stages.get(stage.name()).copied().unwrap_or(0.0));
    let mut spans = vec![
        Span::raw(format!("  {ago:>6} ")),
        Span::raw(padded(&what, width.saturating_sub(OTHERS))),
        Span::styled(format!("{status:>4}"), alarm(trace.status >= 500)),
        Span::raw(format!("{total:>8} ")),
    ];
    spans.extend(bar(&values, BAR));
    spans.into()
}
