//! All destinations, two lines each: figures, and the bar.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Style, Stylize},
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};

use super::{
    frame::{alarm, bar, padded},
    view::{Rates, View},
};
use crate::{
    admin::model::Destination,
    cli::stages::{self, percent, time},
};

/// Columns after the name, with their widths.
const COLUMNS: [(&str, usize); 10] = [
    ("REQ/S", 8),
    ("2XX", 6),
    ("3XX", 5),
    ("4XX", 5),
    ("5XX", 5),
    ("OWN", 5),
    ("ACT", 5),
    ("BREAKER", 10),
    ("P50", 7),
    ("P99", 7),
];
/// Before the name: the mark.
const MARK: usize = 1;
/// After the bar: the slowest stage.
const SLOWEST: usize = 15;
const LINES: usize = 2;

/// Draws them.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let [heads, rows] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let width = usize::from(area.width);
    let figures: usize = COLUMNS.iter().map(|(_, width)| width).sum();
    let name = width.saturating_sub(MARK + figures).max(8);
    let titles = COLUMNS
        .map(|(title, width)| format!("{title:>width$}"))
        .concat();
    let head = format!(
        "{}{}{titles}",
        " ".repeat(MARK),
        padded("DESTINATION", name)
    );
    frame.render_widget(Line::from(head).dim(), heads);
    let all = view.sorted();
    if all.is_empty() {
        let text = match &view.last {
            None => "",
            Some(_) => "No destinations: the file has none, and no other was used yet.",
        };
        let text = Paragraph::new(text).wrap(Wrap { trim: true });
        frame.render_widget(text, rows);
        return;
    }
    let fits = (usize::from(rows.height) / LINES).max(1);
    let place = view.place().unwrap_or(0);
    // A whole page, so that the marked one moves and not all the others.
    let first = place / fits * fits;
    let lines = all
        .iter()
        .enumerate()
        .skip(first)
        .take(fits)
        .flat_map(|(index, it)| {
            let is_marked = index == place;
            [
                figures_of(view, it, name, is_marked),
                bar_of(view, it, width),
            ]
        });
    let mut lines: Vec<Line<'_>> = lines.collect();
    if view.gone.is_some() {
        lines = lines.into_iter().map(Stylize::dim).collect();
    }
    frame.render_widget(Paragraph::new(lines), rows);
}

fn figures_of(view: &View, it: &Destination, name: usize, is_marked: bool) -> Line<'static> {
    let rates = view.rates.get(&it.name).copied();
    let of = |get: fn(&Rates) -> f64| {
        rates
            .as_ref()
            .map_or_else(|| "-".to_owned(), |it| rate(get(it)))
    };
    let total = view.last.as_ref().and_then(|last| {
        let measured = last.measured(&it.name)?;
        measured.recent.times.get("total").copied()
    });
    let breaker = it.breaker.as_ref().map_or("-", |it| it.state.as_str());
    let cells = [
        (of(|it| it.all), false),
        (of(|it| it.classes[1]), false),
        (of(|it| it.classes[2]), false),
        (of(|it| it.classes[3]), false),
        (
            of(|it| it.classes[4]),
            rates.is_some_and(|it| it.classes[4] > 0.0),
        ),
        (of(|it| it.own), rates.is_some_and(|it| it.own > 0.0)),
        (it.active.to_string(), false),
        (breaker.to_owned(), !matches!(breaker, "-" | "closed")),
        (
            total.map_or_else(|| "-".to_owned(), |it| time(it.p50)),
            false,
        ),
        (
            total.map_or_else(|| "-".to_owned(), |it| time(it.p99)),
            false,
        ),
    ];
    let mark = if is_marked { ">" } else { " " };
    let mut spans = vec![Span::raw(mark), Span::raw(padded(&it.name, name)).bold()];
    spans.extend(
        cells
            .into_iter()
            .zip(COLUMNS)
            .map(|((text, is_wrong), (_, width))| {
                Span::styled(format!("{text:>width$}"), alarm(is_wrong))
            }),
    );
    let style = if is_marked {
        Style::new().reversed()
    } else {
        Style::new()
    };
    Line::from(spans).style(style)
}

fn bar_of(view: &View, it: &Destination, width: usize) -> Line<'static> {
    let measured = view.last.as_ref().and_then(|last| last.measured(&it.name));
    let times = measured.map(|it| stages::at(&it.recent.times, |it| it.p50));
    let Some((values, (stage, share))) = times.and_then(|it| Some((it, stages::slowest(&it)?)))
    else {
        return Line::from("  nothing measured lately".dim());
    };
    let mut spans = vec![Span::raw("  ")];
    spans.extend(bar(&values, width.saturating_sub(2 + SLOWEST)));
    spans.push(Span::raw(format!(" {} {}", stage.name(), percent(share))).dim());
    spans.into()
}

/// So many in a second, in at most five letters.
pub(super) fn rate(count: f64) -> String {
    match count {
        0.0 => "0".to_owned(),
        ..9.95 => format!("{count:.1}"),
        ..9_999.5 => format!("{count:.0}"),
        ..999_500.0 => format!("{:.0}k", count / 1e3),
        _ => format!("{:.1}M", count / 1e6),
    }
}
