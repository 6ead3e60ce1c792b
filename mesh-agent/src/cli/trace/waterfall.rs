//! One request, drawn.

use std::fmt::Write as _;

use crate::{
    admin::latency::Trace,
    cli::{
        latency::{Style, bar},
        stages::{percent, plain, slowest, time},
    },
    latency::Stage,
};

/// How wide it is where nobody says how wide the terminal is, and at least.
const NARROW: usize = 80;
/// The longest name of a stamp, with those of its source and their spaces, and the time before the bar.
const WHAT: usize = 44;
const SOURCE: usize = 9;
const AT: usize = 9;

/// The request: a line of what it was, one of its stages, one for each stamp.
pub(super) fn text(trace: &Trace, width: usize, style: Style) -> String {
    let width = width.max(NARROW);
    let room = width - AT - WHAT - SOURCE - 3;
    let mut text = head(trace);
    if let Some(total) = trace.total {
        let values = Stage::ALL.map(|stage| trace.stages.get(stage.name()).copied().unwrap_or(0.0));
        let _infallible = writeln!(
            text,
            "{:>AT$} {} {}",
            time(total),
            bar(&values, room, style),
            in_words(&values)
        );
    }
    if let Some(unclear) = &trace.unclear {
        let _infallible = writeln!(text, "{:>AT$} no stages: {unclear}", "");
    }
    let longest = trace.points.last().map_or(0.0, |point| point.at).max(1.0);
    let cell = |at: f64| ((at / longest * room as f64) as usize).min(room - 1);
    let mut before = 0.0;
    for point in &trace.points {
        let at = point.at.max(0.0);
        let (from, to) = (cell(before), cell(at));
        let mut line: String = " ".repeat(from);
        line.extend(std::iter::repeat_n('─', to - from));
        line.push('●');
        let uncertainty = point.uncertainty;
        let uncertainty = uncertainty.map_or_else(String::new, |it| format!(" ± {}", time(it)));
        let _infallible = writeln!(
            text,
            "{:>AT$} {line:<room$} {:<WHAT$} {}{uncertainty}",
            time(at),
            plain(&point.what),
            point.source
        );
        before = at;
    }
    text
}

/// What it was and how it ended.
fn head(trace: &Trace) -> String {
    // DNS has none.
    let status = match trace.status {
        0 => String::new(),
        status => format!(" {status}"),
    };
    let mut text = format!(
        "{} {}{status}  {} → {} ({})\n",
        plain(&trace.method),
        plain(&trace.path),
        plain(&trace.pod),
        plain(&trace.destination),
        trace.endpoint
    );
    let clock = humantime::format_rfc3339_millis(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs_f64(trace.began.max(0.0)),
    );
    let total = trace.total.map_or_else(|| "-".to_owned(), time);
    let tries = if trace.tries == 1 { "try" } else { "tries" };
    let _infallible = write!(text, "  {clock}, total {total}, {} {tries}", trace.tries);
    if trace.resent > 0 {
        let segments = if trace.resent == 1 {
            "segment"
        } else {
            "segments"
        };
        let _infallible = write!(text, ", {} {segments} sent again", trace.resent);
    }
    let _infallible = write!(
        text,
        "\n  round trip {} (at least {})",
        time(trace.round_trip),
        time(trace.least_round_trip)
    );
    if let Some(id) = &trace.trace_id {
        let _infallible = write!(text, ", trace {id}");
    }
    text.push('\n');
    text
}

/// The stages that took most.
fn in_words(values: &[f64; Stage::ALL.len()]) -> String {
    let sum: f64 = values.iter().sum();
    let Some((first, share)) = slowest(values) else {
        return String::new();
    };
    let mut words = format!(
        "{} {} ({})",
        first.name(),
        time(values[first as usize]),
        percent(share)
    );
    let mut rest: Vec<Stage> = Stage::ALL.into_iter().filter(|it| *it != first).collect();
    rest.sort_by(|one, other| values[*other as usize].total_cmp(&values[*one as usize]));
    for stage in rest.into_iter().take(2) {
        let value = values[stage as usize];
        if value > sum / 100.0 {
            let _infallible = write!(words, ", {} {}", stage.name(), time(value));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trace() -> Trace {
        let point =
            |what: &str, at: f64, source: &str| json!({"what": what, "at": at, "source": source});
        serde_json::from_value(json!({
            "began": 1_700_000_000.5, "pod": "client", "destination": "web", "endpoint": "10.0.0.1:80",
            "method": "GET", "path": "/a\u{9b}b", "status": 200, "traceId": "00ff", "tries": 2,
            "total": 1_000.0, "stages": {"mesh": 150.0, "network": 50.0, "server": 800.0},
            "points": [
                point("request: first byte came", 0.0, "software"),
                point("request: sent by the device", 100.0, "hardware"),
                point("request: acknowledged by the server's kernel", 150.0, "software"),
                point("answer: first byte came", 950.0, "software"),
                point("answer: written", 1_000.0, "clock"),
            ],
            "roundTrip": 60.0, "leastRoundTrip": 50.0, "resent": 1,
        }))
        .unwrap()
    }

    #[test]
    fn stamps_are_where_their_times_are() {
        let text = text(&trace(), 0, Style { colours: false });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "GET /a\u{fffd}b 200  client → web (10.0.0.1:80)");
        assert_eq!(
            lines[1],
            "  2023-11-14T22:13:20.500Z, total 1.00ms, 2 tries, 1 segment sent again"
        );
        assert_eq!(
            lines[2],
            "  round trip 60.0µs (at least 50.0µs), trace 00ff"
        );
        assert_eq!(
            lines[3],
            "   1.00ms ▓▓≈████████████ server 800µs (80%), mesh 150µs, network 50.0µs"
        );
        assert_eq!(lines.len(), 9);
        let place = |line: &str| line.chars().position(|it| it == '●').unwrap() - AT - 1;
        assert_eq!([4, 5, 7, 8].map(|line| place(lines[line])), [0, 1, 14, 14]);
        for line in &lines[3..] {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            lines[5].ends_with("hardware") && lines[8].ends_with("clock"),
            "{text}"
        );
    }

    #[test]
    fn a_request_without_stages_says_why() {
        let mut trace = trace();
        trace.total = None;
        trace.unclear = Some("the answer began before the request had ended".to_owned());
        let text = text(&trace, 120, Style { colours: false });
        assert!(text.contains("no stages: the answer began"), "{text}");
    }
}
