//! Requests are tried again when the policy says so, and not once more.

use anyhow::ensure;
use mesh_tests::scenario;

use super::{PORT, Web, asked};
use crate::peers::{SERVER, at};

const RETRIES: &str = "{retries: {attempts: 2, on: [connect-failure, reset, '503']}}";

#[test]
fn a_request_that_may_be_repeated_is_until_it_succeeds() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, RETRIES)?;
        ensure!(web.status(&[], "/fail?n=2&key=a")?.0 == 200);
        ensure!(web.status(&[], "/reset?n=2&key=b")?.0 == 200);
        ensure!(
            web.status(&["-X", "PUT", "-d", "body"], "/fail?n=1&key=c")?
                .0
                == 200
        );
        // Its own answer, the third, not the agent's.
        let (status, reason) = web.status(&[], "/fail?n=9&key=d")?;
        ensure!((status, &*reason) == (503, ""), "{status} {reason}");
        let (status, reason) = web.status(&[], "/reset")?;
        ensure!(
            (status, &*reason) == (502, "upstream_reset"),
            "{status} {reason}"
        );
        // And those on connections that were kept, and may have ended before.
        let log = Web::log(&web.server)?;
        ensure!(asked(&log, "/fail") == 3 + 2 + 3, "{log}");
        ensure!((6..=8).contains(&asked(&log, "/reset")), "{log}");
        Ok(())
    });
}

#[test]
fn a_request_that_may_not_be_repeated_is_sent_once() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, RETRIES)?;
        ensure!(web.status(&["-d", "a=b"], "/fail?n=1&key=a")?.0 == 503);
        ensure!(web.status(&["-d", "a=b"], "/reset?n=1&key=b")?.0 == 502);
        let log = Web::log(&web.server)?;
        ensure!(
            asked(&log, "/fail") == 1 && asked(&log, "/reset") == 1,
            "{log}"
        );
        // Unless the policy says so.
        let policy = "{retries: {attempts: 2, allMethods: true}}";
        let config = web.config(node, &[&at(SERVER, PORT)], policy);
        agent.rewrite_config(&config.to_yaml())?;
        mesh_tests::wait_until(super::BOUND, "the new policy", || {
            let key = format!("/fail?n=1&key={}", Web::log(&web.server)?["/fail"]);
            Ok(web.status(&["-d", "a=b"], &key)?.0 == 200)
        })
    });
}

#[test]
fn another_server_is_asked_and_a_body_is_sent_again() {
    scenario(|node| {
        let web = Web::new(node)?;
        let dead = at(SERVER, 1);
        let good = at(web.other.address(), PORT);
        let config = web.config(node, &[&dead, &good], RETRIES);
        let _agent = node.agent(&config)?;
        let body = "x".repeat(50_000);
        for _ in 0..10 {
            let arguments = ["-X", "POST", "-H", "Expect:", "-d", &body];
            let sum = web.curl(&arguments, "/sum")?;
            ensure!(sum.starts_with("50000 "), "{sum}");
        }
        Ok(())
    });
}

#[test]
fn a_body_that_is_too_long_to_keep_is_sent_once_and_whole() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{retries: {attempts: 2, allMethods: true, bufferBytes: 1000}}";
        let _agent = web.agent(node, policy)?;
        let file = web.client.scratch("body");
        std::fs::write(&file, vec![b'y'; 3_000_000])?;
        let file = format!("@{}", file.display());
        for length in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
            let arguments = [&["-X", "PUT", "--data-binary", &file], length].concat();
            let sum = web.curl(&arguments, "/sum")?;
            ensure!(sum.starts_with("3000000 "), "{sum}");
            ensure!(web.status(&arguments, "/fail?n=9&key=long")?.0 == 503);
        }
        ensure!(asked(&Web::log(&web.server)?, "/fail") == 2);
        Ok(())
    });
}

#[test]
fn a_server_that_asks_for_time_gets_it_or_is_left_alone() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{timeouts: {request: 5s}, retries: {}}")?;
        let begun = std::time::Instant::now();
        ensure!(web.status(&[], "/retry-after?n=1&s=1&key=a")?.0 == 200);
        ensure!(begun.elapsed() >= std::time::Duration::from_secs(1));
        let begun = std::time::Instant::now();
        ensure!(web.status(&[], "/retry-after?n=1&s=60&key=b")?.0 == 503);
        ensure!(begun.elapsed() < std::time::Duration::from_secs(1));
        Ok(())
    });
}

#[test]
fn the_budget_keeps_retries_from_multiplying_the_load() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{retries: {attempts: 10, on: [5xx], budget: {ratio: 0.1, floor: 1}}}";
        let _agent = web.agent(node, policy)?;
        let requests = 400;
        let urls = format!("http://{}/slow?ms=5&n=[1-{requests}]", super::WEB);
        let status = format!("http://{}/status?code=500&n=[1-{requests}]", super::WEB);
        for url in [&urls, &status] {
            web.client
                .run([
                    "curl",
                    "-sS",
                    "-Z",
                    "--parallel-max",
                    "40",
                    "-o",
                    "/dev/null",
                    url,
                ])?
                .success()?;
        }
        let log = Web::log(&web.server)?;
        ensure!(asked(&log, "/slow") == requests, "{log}");
        let sent = asked(&log, "/status");
        // One of ten at a time: without the budget there would be eleven tries of each.
        ensure!(
            (requests..requests * 2).contains(&sent),
            "{sent} tries of {requests}"
        );
        Ok(())
    });
}
