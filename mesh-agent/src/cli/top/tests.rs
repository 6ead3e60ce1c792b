//! What is drawn, at the size of a terminal over ssh.

use std::{collections::BTreeMap, time::Duration};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};

use super::{snapshot::Snapshot, view::Sort, *};

fn times(p50: f64) -> Value {
    json!({"mean": p50, "p50": p50, "p90": p50 * 2.0, "p99": p50 * 3.0, "p999": p50 * 4.0, "max": p50 * 5.0})
}

fn destination(name: &str, answered: u64, failed: u64, breaker: &str) -> Value {
    json!({
        "name": name, "protocol": "auto", "active": 3,
        "answered": {"2xx": answered, "5xx": failed},
        "retries": 4, "hedges": 0, "hedgesWon": 0, "retriesOverBudget": 0,
        "ownAnswers": {"breaker_open": failed}, "wouldRefuse": {}, "degraded": 0,
        "breaker": {
            "state": breaker, "observes": false, "calls": 20, "failed": 5, "slow": 1, "consecutive": 3,
            "why": "3 failures in a row", "openedSecondsAgo": 1.0, "trips": 1, "probeInSeconds": 2.5,
        },
        "throttled": null, "limits": {"requests": null, "connections": null},
        "seen": {"seconds": 10.0, "mostActive": 3, "times": null},
        "endpoints": [{
            "address": "10.0.0.1:80", "tries": answered, "failed": failed, "active": 3, "isDown": false,
            "ejectedForSeconds": null,
        }],
    })
}

fn measured(name: &str, server: f64) -> Value {
    let stages = [("mesh", 100.0), ("network", 50.0), ("server", server)];
    let mut of: BTreeMap<&str, Value> = stages.map(|(name, p50)| (name, times(p50))).into();
    of.insert("total", times(150.0 + server));
    of.insert("roundTrip", times(40.0));
    let served = json!({
        "count": 12, "overlapping": 0, "inconsistent": 0, "retransmits": 7,
        "sources": {"software": 12}, "times": of,
    });
    json!({"destination": name, "recent": served, "sinceStart": served})
}

const LONG: &str = "a-destination-whose-name-is-longer-than-any-column.shop.svc.cluster.local";

fn snapshot(at: Instant, requests: u64) -> Snapshot {
    let pods: Vec<Value> = (0..12)
        .map(|number| {
            let state = if number == 11 { "failed" } else { "enrolled" };
            json!({
                "name": format!("pod-with-a-rather-long-name-{number}"), "netns": "/run/netns/a",
                "state": state, "reason": null, "netnsCookie": 1, "proxy": "agent", "onAgentDown": "open",
                "connections": 2, "connectionsTotal": 9, "connectionsFailed": 0, "servers": [],
                "dns": null, "datagrams": null, "overload": null,
            })
        })
        .collect();
    let mut destinations = vec![
        destination("quiet", 5, 0, "closed"),
        destination(LONG, requests, 0, "closed"),
        destination("broken", 10, requests / 10, "half-open"),
    ];
    destinations.extend((0..20).map(|it| destination(&format!("other-{it:02}"), 0, 0, "closed")));
    Snapshot {
        at,
        clock: 1_000.0,
        status: serde_json::from_value(json!({
            "version": "0.1.0", "pid": 1, "ready": true, "uptimeSeconds": 7_384.0, "cgroup": "/a",
            "pinPath": "/b", "config": "/c", "configError": null,
            "pods": {"configured": 12, "enrolled": 11},
            "connections": {"open": 24, "total": 100, "failed": 0},
            "descriptors": {"open": 1, "limit": 2}, "counters": {}, "counterHelp": [],
        }))
        .unwrap(),
        pods: serde_json::from_value(Value::Array(pods)).unwrap(),
        destinations: serde_json::from_value(Value::Array(destinations)).unwrap(),
        latency: serde_json::from_value(json!({
            "sample": 0.01, "mostPerSecond": 100, "stages": [],
            "destinations": [measured(LONG, 850.0), measured("broken", 12_000.0)],
            "series": [],
            "stamps": {"matched": 1, "again": 0, "unmatched": 0, "measured": 1, "unfinished": 0},
        }))
        .unwrap(),
        traces: serde_json::from_value(json!([{
            "began": 990.0, "pod": "client", "destination": LONG, "endpoint": "10.0.0.1:80",
            "method": "GET", "path": "/a/long/path/\u{1b}[2J/that/does/not/fit/into/its/column/at/all",
            "status": 503, "tries": 2, "total": 1_000.0, "stages": {"mesh": 200.0, "server": 800.0},
            "points": [], "roundTrip": 40.0, "leastRoundTrip": 30.0, "resent": 0,
        }]))
        .unwrap(),
    }
}

/// One that has seen two answers, a second apart.
fn view(now: Instant) -> View {
    let mut view = View::default();
    let before = snapshot(now.checked_sub(Duration::from_secs(1)).unwrap(), 1_000);
    view.polled(Box::new(Ok(before)), now);
    view.polled(Box::new(Ok(snapshot(now, 2_234))), now);
    view
}

fn press(view: &mut View, code: KeyCode) -> Then {
    view.key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// The lines of the terminal.
fn drawn(view: &View, now: Instant) -> Vec<String> {
    drawn_at(view, now, 80, 24)
}

fn drawn_at(view: &View, now: Instant, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| frame::draw(frame, view, now))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    rows.map(|row| {
        row.iter()
            .map(ratatui::buffer::Cell::symbol)
            .collect::<String>()
    })
    .map(|row| row.trim_end().to_owned())
    .collect()
}

#[test]
fn the_overview_fits_eighty_by_twenty_four() {
    let now = Instant::now();
    let lines = drawn(&view(now), now);
    let text = lines.join("\n");
    assert_eq!(
        lines[0],
        " mesh-agent  ready · up 2h03m · 24 connections · 11 of 12 pods"
    );
    assert!(
        lines[1].starts_with(" pods  pod-with-a-rather-l… failed · "),
        "{text}"
    );
    assert!(lines[1].ends_with("+10 more"), "{text}");
    assert_eq!(
        lines[3],
        " DESTINATION        REQ/S   2XX  3XX  4XX  5XX  OWN  ACT   BREAKER    P50    P99"
    );
    assert_eq!(
        lines[4],
        ">a-destination-w…    1234  1234    0    0    0    0    3    closed 1.00ms 3.00ms"
    );
    assert_eq!(
        lines[5],
        format!(
            "  {}{}{} server 85%",
            "▓".repeat(6),
            "≈".repeat(3),
            "█".repeat(54)
        )
    );
    assert_eq!(
        lines[6],
        " broken               123     0    0    0  123  123    3 half-open 12.2ms 36.5ms"
    );
    assert!(lines[9].contains("nothing measured lately"), "{text}");
    for stage in crate::latency::Stage::ALL {
        assert!(lines[22].contains(stage.name()), "{text}");
    }
    for key in ["q  quit", "Enter  detail", "sort: rate", "pause", "?  help"] {
        assert!(lines[23].contains(key), "{key}: {text}");
    }
}

#[test]
fn the_detail_has_all_stages_and_the_last_requests() {
    let now = Instant::now();
    let mut view = view(now);
    assert_eq!(press(&mut view, KeyCode::Enter), Then::Ask);
    assert_eq!(view.detail(), Some(LONG));
    let lines = drawn(&view, now);
    let text = lines.join("\n");
    assert!(
        lines[3].contains("…  1234/s · 3 active · 4 retries") && lines[3].ends_with("0 own"),
        "{text}"
    );
    assert!(
        lines[4].starts_with(" breaker closed: 5 of 20 calls failed, 1 slow; opened last"),
        "{text}"
    );
    assert!(
        text.contains("█ server         850µs   1.70ms   2.55ms   3.40ms   85% ████"),
        "{text}"
    );
    assert!(
        text.contains("  total         1.00ms   2.00ms   3.00ms   4.00ms"),
        "{text}"
    );
    assert!(
        text.contains("12 measured · stamps from software 12 · 7 retransmits"),
        "{text}"
    );
    let request = lines
        .iter()
        .find(|line| line.contains("10.0s GET /a/long/path/"))
        .unwrap();
    assert!(
        request.ends_with(&format!(
            "… 503  1.00ms {}{}",
            "▓".repeat(4),
            "█".repeat(16)
        )),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'));
    assert!(lines[23].contains("Esc  back"), "{text}");
    press(&mut view, KeyCode::Esc);
    assert_eq!(view.detail(), None);
}

#[test]
fn an_agent_that_is_gone_is_shown_until_it_is_back() {
    let now = Instant::now();
    let mut view = view(now);
    let error = || Box::new(Err("/run/a.sock: no agent is running there".to_owned()));
    view.polled(error(), now);
    view.polled(error(), now + Duration::from_secs(1));
    let lines = drawn(&view, now + Duration::from_secs(12));
    assert_eq!(
        lines[0],
        " mesh-agent  the agent is gone for 12.0s: /run/a.sock: no agent is running there"
    );
    assert!(
        lines[4].contains("a-destination-"),
        "what was known is still there"
    );
    let mut another = snapshot(now + Duration::from_secs(13), 3);
    another.status.pid = 2;
    view.polled(Box::new(Ok(another)), now);
    let lines = drawn(&view, now);
    assert!(lines[0].contains("ready · up"), "{}", lines[0]);
    assert!(
        view.rates.is_empty(),
        "its counts are not those of the one before"
    );
}

#[test]
fn the_marked_destination_stays_marked_wherever_it_goes() {
    let now = Instant::now();
    let mut view = view(now);
    press(&mut view, KeyCode::Char('j'));
    assert_eq!(view.selected.as_deref(), Some("broken"));
    press(&mut view, KeyCode::Char('s'));
    assert_eq!(view.sort, Sort::Time);
    assert_eq!(view.place(), Some(0));
    press(&mut view, KeyCode::End);
    let last = view.selected.clone().unwrap();
    let text = drawn(&view, now).join("\n");
    assert!(text.contains(&format!(">{last}")), "{text}");
    press(&mut view, KeyCode::Home);
    press(&mut view, KeyCode::Up);
    assert_eq!(view.place(), Some(0));
}

#[test]
fn while_paused_nothing_changes() {
    let now = Instant::now();
    let mut view = view(now);
    press(&mut view, KeyCode::Char('p'));
    let before = drawn(&view, now);
    assert!(before[0].ends_with("PAUSED"), "{}", before[0]);
    view.polled(
        Box::new(Ok(snapshot(now + Duration::from_secs(1), 9_999))),
        now,
    );
    assert_eq!(drawn(&view, now), before);
    assert_eq!(press(&mut view, KeyCode::Char('p')), Then::Ask);
}

#[test]
fn help_closes_with_any_key_and_q_quits() {
    let now = Instant::now();
    let mut view = view(now);
    press(&mut view, KeyCode::Char('?'));
    let text = drawn(&view, now).join("\n");
    assert!(
        text.contains("any key closes it") && text.contains("time at p50 into the stages"),
        "{text}"
    );
    assert_eq!(press(&mut view, KeyCode::Char('x')), Then::Draw);
    assert!(!view.shows_help);
    assert_eq!(press(&mut view, KeyCode::Char('q')), Then::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.key(interrupt), Then::Quit);
}

#[test]
fn no_size_of_the_terminal_is_too_small() {
    let now = Instant::now();
    let mut view = view(now);
    for _ in 0..2 {
        for (width, height) in [(1, 1), (10, 3), (40, 10), (200, 60)] {
            drawn_at(&view, now, width, height);
        }
        press(&mut view, KeyCode::Enter);
        press(&mut view, KeyCode::Char('?'));
    }
}

#[test]
fn the_interval_has_bounds() {
    assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
    assert!(interval("1ms").is_err() && interval("2h").is_err() && interval("x").is_err());
}

#[test]
fn what_is_measured_and_no_destination_is_shown_without_counts() {
    let now = Instant::now();
    let mut view = View::default();
    for (at, requests) in [
        (now.checked_sub(Duration::from_secs(1)).unwrap(), 1),
        (now, 2),
    ] {
        let mut snapshot = snapshot(at, requests);
        let mut dns = snapshot.latency.destinations[0].clone();
        "dns".clone_into(&mut dns.destination);
        snapshot.latency.destinations.push(dns);
        snapshot::add_measured(&mut snapshot.destinations, &snapshot.latency);
        view.polled(Box::new(Ok(snapshot)), now);
    }
    view.selected = Some("dns".to_owned());
    let lines = drawn(&view, now);
    let row = lines.iter().find(|line| line.starts_with(">dns")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        cells[1..],
        ["-", "-", "-", "-", "-", "-", "0", "-", "1.00ms", "3.00ms"]
    );
}
