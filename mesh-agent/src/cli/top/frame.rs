//! What is around: the head, the foot, help; and what the views have in common.

use std::time::Instant;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use super::{detail, overview, view::View};
use crate::{
    admin::model::Pod,
    cli::{
        output,
        stages::{look, plain, split},
    },
    latency::Stage,
    pods::PodState,
};

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, now: Instant) {
    let [head, pods, _, body, legend, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(self::head(view, now, head.width), head);
    frame.render_widget(self::pods(view, pods.width), pods);
    match view.detail() {
        Some(name) => detail::draw(frame, body, view, name),
        None => overview::draw(frame, body, view),
    }
    frame.render_widget(self::legend(), legend);
    frame.render_widget(self::foot(view), foot);
    if view.shows_help {
        help(frame);
    }
}

/// How the agent is, and how current this is.
fn head(view: &View, now: Instant, width: u16) -> Line<'static> {
    let mut spans = vec![" mesh-agent ".bold().reversed(), Span::raw(" ")];
    if let Some((since, why)) = &view.gone {
        let ago = now.saturating_duration_since(*since).as_secs_f64();
        let text = format!(
            "the agent is gone for {}: {}",
            output::seconds(ago),
            plain(why)
        );
        let room = usize::from(width).saturating_sub(13);
        spans.push(short(&text, room).red().bold());
        return spans.into();
    }
    let Some(last) = &view.last else {
        spans.push(Span::raw("asks the agent ..."));
        return spans.into();
    };
    let status = &last.status;
    spans.push(if status.ready {
        "ready".green()
    } else {
        "not ready".red()
    });
    spans.push(Span::raw(format!(
        " · up {} · {} connections · {} of {} pods",
        output::seconds(status.uptime_seconds),
        status.connections.open,
        status.pods.enrolled,
        status.pods.configured,
    )));
    if status.config_error.is_some() {
        spans.push(" · file not applied".red());
    }
    if view.is_paused {
        spans.push(Span::raw(" "));
        spans.push(" PAUSED ".black().on_yellow());
    }
    spans.into()
}

/// As many pods as there is room for, those in trouble first.
fn pods(view: &View, width: u16) -> Line<'static> {
    let mut pods: Vec<&Pod> = view.last.iter().flat_map(|it| &it.pods).collect();
    pods.sort_by_key(|pod| match pod.state {
        PodState::Failed => 0,
        PodState::Waiting => 1,
        PodState::Enrolled => 2,
    });
    let mut spans = vec![Span::raw(" pods  ").dim()];
    let width = usize::from(width);
    let mut used = 7;
    let count = pods.len();
    for (index, pod) in pods.into_iter().enumerate() {
        let text = match pod.state {
            PodState::Enrolled => format!("{} {} open", short(&pod.name, 20), pod.connections),
            _ => format!("{} {}", short(&pod.name, 20), pod.state),
        };
        let span = match pod.state {
            PodState::Enrolled => Span::raw(text),
            PodState::Waiting => text.yellow(),
            PodState::Failed => text.red(),
        };
        let more = format!("+{} more", count - index);
        let is_last = index + 1 == count;
        let room_for_more = if is_last { 0 } else { more.len() + 3 };
        if used + span.width() + room_for_more > width {
            spans.push(more.dim());
            break;
        }
        used += span.width() + 3;
        spans.push(span);
        if !is_last {
            spans.push(" · ".dim());
        }
    }
    spans.into()
}

fn legend() -> Line<'static> {
    let spans = Stage::ALL.into_iter().flat_map(|stage| {
        let fill = look(stage).fill.to_string();
        [
            Span::styled(format!(" {fill} "), colour(stage)),
            stage.name().dim(),
        ]
    });
    spans.collect::<Vec<_>>().into()
}

fn foot(view: &View) -> Line<'static> {
    let sort = format!("sort: {}", view.sort.name());
    let pause = if view.is_paused { "go on" } else { "pause" };
    let keys: &[(&str, &str)] = if view.detail().is_some() {
        &[
            ("q", "quit"),
            ("Esc", "back"),
            ("↑↓", "other"),
            ("p", pause),
            ("?", "help"),
        ]
    } else {
        &[
            ("q", "quit"),
            ("↑↓", "select"),
            ("Enter", "detail"),
            ("s", &sort),
            ("p", pause),
            ("?", "help"),
        ]
    };
    let spans = keys.iter().flat_map(|(key, what)| {
        [
            format!(" {key} ").reversed(),
            Span::raw(format!(" {what}  ")),
        ]
    });
    spans.collect::<Vec<_>>().into()
}

fn help(frame: &mut Frame<'_>) {
    const TEXT: &str = "\
 q           quit
 ↑ ↓  j k    select a destination; PgUp PgDn Home End
 Enter       its stages and last requests; Esc: back
 s           sort by rate, p99, errors (5xx), name
 p           pause

 REQ/S and the classes of answers are of the last
 interval; OWN are those that the agent gave itself.
 P50, P99 and the bar are of measured requests in
 the last half to whole minute. The bar splits the
 time at p50 into the stages below.";
    let area = centred(frame.area(), 56, TEXT.lines().count() as u16 + 2);
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" help: any key closes it ");
    frame.render_widget(Paragraph::new(TEXT).block(block), area);
}

fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    }
}

/// How the parts of `stage` are coloured.
pub(super) fn colour(stage: Stage) -> Style {
    Style::new().fg(match look(stage).colour {
        0 => Color::Black,
        1 => Color::Red,
        2 => Color::Green,
        3 => Color::Yellow,
        4 => Color::Blue,
        5 => Color::Magenta,
        6 => Color::Cyan,
        7 => Color::Gray,
        _ => Color::DarkGray,
    })
}

/// Stages side by side, `width` cells in all.
pub(super) fn bar(values: &[f64; Stage::ALL.len()], width: usize) -> Vec<Span<'static>> {
    let cells = Stage::ALL.into_iter().zip(split(values, width));
    let cells = cells.filter(|(_, cells)| *cells > 0);
    let parts = cells.map(|(stage, cells)| {
        let fill: String = std::iter::repeat_n(look(stage).fill, cells).collect();
        Span::styled(fill, colour(stage))
    });
    parts.collect()
}

/// `text` in at most `width` cells, with an ellipsis if that is not all of it.
pub(super) fn short(text: &str, width: usize) -> String {
    let text = plain(text);
    if Span::raw(text.as_str()).width() <= width {
        return text;
    }
    let mut shortened = String::new();
    for letter in text.chars() {
        let longer = format!("{shortened}{letter}");
        if Span::raw(longer.as_str()).width() + 1 > width {
            break;
        }
        shortened = longer;
    }
    if width > 0 {
        shortened.push('…');
    }
    shortened
}

/// The same, filled up with spaces.
pub(super) fn padded(text: &str, width: usize) -> String {
    let text = short(text, width);
    let missing = width - Span::raw(text.as_str()).width();
    text + &" ".repeat(missing)
}

/// Bold where something is wrong.
pub(super) fn alarm(is_wrong: bool) -> Style {
    if is_wrong {
        Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
    } else {
        Style::new()
    }
}
