//! Time-outs and the deadline that servers are told.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_tests::scenario;

use super::{Web, asked};

fn timed(web: &Web, arguments: &[&str], path: &str) -> Result<(u16, String, Duration)> {
    let begun = Instant::now();
    let (status, reason) = web.status(arguments, path)?;
    Ok((status, reason, begun.elapsed()))
}

#[test]
fn a_request_ends_at_its_deadline_and_so_does_the_server_s_connection() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{timeouts: {request: 300ms}, retries: {}}")?;
        for path in ["/hang", "/slow?ms=5000"] {
            let (status, reason, took) = timed(&web, &[], path)?;
            ensure!(
                (status, &*reason) == (504, "request_timeout"),
                "{status} {reason}"
            );
            ensure!((250..1500).contains(&took.as_millis()), "{path}: {took:?}");
        }
        // An answer that has begun is cut: its client must not take it for whole.
        let url = format!("http://{}/part?bytes=1000", super::WEB);
        let cut = web.client.run(["curl", "-sS", "--max-time", "5", &url])?;
        ensure!(matches!(cut.status.code(), Some(18 | 56)), "{}", cut.stderr);
        // What the agent gave up is closed at once.
        mesh_tests::wait_until(super::BOUND, "connections to end", || {
            let open =
                web.server
                    .run(["ss", "-tnH", "state", "established", "sport", "=", ":8080"])?;
            Ok(open.success()?.trim().is_empty())
        })
    });
}

#[test]
fn the_caller_s_own_deadline_counts_and_servers_are_told_what_is_left() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{timeouts: {request: 10s}}")?;
        let caller = ["-H", "X-Envoy-Expected-Rq-Timeout-Ms: 400"];
        let (status, reason, took) = timed(&web, &caller, "/hang")?;
        ensure!(
            (status, &*reason) == (504, "request_timeout"),
            "{status} {reason}"
        );
        ensure!(took < Duration::from_secs(2), "{took:?}");
        let told = |arguments: &[&str]| -> Result<u64> {
            let lines: Vec<String> = serde_json::from_str(&web.curl(arguments, "/head")?)?;
            let name = "x-envoy-expected-rq-timeout-ms: ";
            let mut values = lines
                .iter()
                .filter_map(|line| line.to_lowercase().strip_prefix(name)?.parse().ok());
            let value = values.next().unwrap_or(0);
            ensure!(values.next().is_none(), "told twice: {lines:?}");
            Ok(value)
        };
        ensure!((9_000..=10_000).contains(&told(&[])?));
        ensure!((300..=400).contains(&told(&caller)?));
        Ok(())
    });
}

#[test]
fn each_try_has_its_own_time() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{timeouts: {perTry: 200ms, request: 5s}, \
                      retries: {attempts: 2, on: [per-try-timeout], backoff: {base: 1ms, max: 1ms}}}";
        let _agent = web.agent(node, policy)?;
        let (status, reason, took) = timed(&web, &[], "/hang")?;
        ensure!(
            (status, &*reason) == (504, "per_try_timeout"),
            "{status} {reason}"
        );
        ensure!((600..2000).contains(&took.as_millis()), "{took:?}");
        let log = Web::log(&web.server)?;
        ensure!(asked(&log, "/hang") == 3, "{log}");
        Ok(())
    });
}

#[test]
fn an_answer_that_does_not_move_ends_and_one_that_does_goes_on() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{timeouts: {idle: 500ms}}")?;
        let url = format!("http://{}/part?bytes=1000", super::WEB);
        let begun = Instant::now();
        let cut = web.client.run(["curl", "-sS", "--max-time", "10", &url])?;
        ensure!(matches!(cut.status.code(), Some(18 | 56)), "{}", cut.stderr);
        ensure!(begun.elapsed() < Duration::from_secs(4));
        let drip = web.curl(&[], "/drip?n=12")?;
        ensure!(drip.len() == 12, "{drip}");
        Ok(())
    });
}

#[test]
fn the_adaptive_time_out_is_strict_once_answers_are_slow() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{timeouts: {adaptive: {target: 100ms, max: 2s, window: 1}}}";
        let _agent = web.agent(node, policy)?;
        // Generous at first.
        ensure!(web.status(&[], "/slow?ms=400")?.0 == 200);
        // The average is over the target now: no more than that.
        let (status, reason, took) = timed(&web, &[], "/slow?ms=400")?;
        ensure!(
            (status, &*reason) == (504, "per_try_timeout"),
            "{status} {reason}"
        );
        ensure!(took < Duration::from_millis(390), "{took:?}");
        // Quick answers bring it down again.
        ensure!(web.status(&[], "/ok")?.0 == 200);
        ensure!(web.status(&[], "/slow?ms=400")?.0 == 200);
        Ok(())
    });
}
