//! Servers are asked how they are, and used accordingly, before any request fails.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mesh_tests::{Agent, scenario, wait_until};

use super::{BOUND, PORT, WEB, Web, asked};
use crate::peers::{OTHER, SERVER, at};

/// Nobody listens there.
const NOBODY: u16 = 9;

/// Waits until the endpoint at this address is up, or down.
fn wait_down(agent: &Agent, address: &str, is_down: bool) -> Result<()> {
    wait_until(BOUND, &format!("{address} to be down: {is_down}"), || {
        let destinations = agent.json("destinations")?;
        let endpoints = destinations[0]["endpoints"].as_array();
        let mut endpoints = endpoints.into_iter().flatten();
        Ok(endpoints.any(|it| it["address"] == address && it["isDown"] == is_down))
    })
}

fn policy(check: &str) -> String {
    format!("{{healthCheck: {{{check}, interval: 50ms, rise: 2, fall: 2}}}}")
}

#[test]
fn a_server_that_says_it_is_ill_gets_no_requests_until_it_is_well() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent_for_both(node, &policy("type: http, path: /healthz"))?;
        let say = |up: &str| -> Result<String> {
            let url = format!("http://{}/healthz?up={up}", at(SERVER, PORT));
            web.server.run(["curl", "-sS", &url])?.success()
        };
        say("0")?;
        wait_down(&agent, &at(SERVER, PORT), true)?;
        for _ in 0..20 {
            ensure!(web.curl(&[], "/ok")? == "other");
        }
        ensure!(asked(&Web::log(&web.server)?, "/ok") == 0);
        say("1")?;
        wait_down(&agent, &at(SERVER, PORT), false)?;
        let mut seen = (0..60).map(|_| web.curl(&[], "/ok"));
        ensure!(seen.any(|name| name.is_ok_and(|name| name == "server")));
        // A policy without checks forgets what they said.
        say("0")?;
        wait_down(&agent, &at(SERVER, PORT), true)?;
        let endpoints = [at(SERVER, PORT), at(OTHER, PORT)];
        let config = web.config(node, &endpoints.each_ref().map(String::as_str), "{}");
        agent.rewrite_config(&config.to_yaml())?;
        wait_down(&agent, &at(SERVER, PORT), false)
    });
}

#[test]
fn a_server_that_is_gone_is_noticed_without_a_request() {
    scenario(|node| {
        let web = Web::new(node)?;
        let endpoints = [at(SERVER, NOBODY), at(OTHER, PORT)];
        let endpoints = endpoints.each_ref().map(String::as_str);
        let agent = node.agent(&web.config(node, &endpoints, &policy("type: tcp")))?;
        wait_down(&agent, &at(SERVER, NOBODY), true)?;
        wait_down(&agent, &at(OTHER, PORT), false)?;
        for _ in 0..20 {
            ensure!(web.status(&[], "/ok")? == (200, String::new()));
        }
        // By how long it was not heard of.
        let config = web.config(node, &endpoints, &policy("type: tcp, phi: 6"));
        agent.rewrite_config(&config.to_yaml())?;
        wait_down(&agent, &at(SERVER, NOBODY), true)?;
        wait_down(&agent, &at(OTHER, PORT), false)
    });
}

#[test]
fn grpc_s_own_health_service_is_understood() {
    scenario(|node| {
        let web = Web::new(node)?;
        let mut server = web
            .server
            .spawn_python("grpc_server.py", [at(SERVER, 7004)])?;
        server.wait_stdout("ready", BOUND)?;
        let agent = node.agent(&web.config(
            node,
            &[&at(SERVER, 7004), &at(OTHER, PORT)],
            &policy("type: grpc"),
        ))?;
        // One that speaks no HTTP/2 is down.
        wait_down(&agent, &at(OTHER, PORT), true)?;
        wait_down(&agent, &at(SERVER, 7004), false)?;
        let say = |serving: &str| -> Result<String> {
            let script = format!(
                "import grpc\nchannel = grpc.insecure_channel('{}')\n\
                 channel.unary_unary('/Test/serving')(b'{serving}')",
                at(SERVER, 7004)
            );
            web.server
                .run([mesh_tests::python(), "-c", &script])?
                .success()
        };
        say("0")?;
        wait_down(&agent, &at(SERVER, 7004), true)?;
        say("1")?;
        wait_down(&agent, &at(SERVER, 7004), false)
    });
}

#[test]
fn a_server_that_is_well_again_gets_a_share_that_grows() {
    const SLOW_START: Duration = Duration::from_secs(8);
    const REQUESTS: u32 = 200;
    // Of two servers, once both have started.
    const SHARE: f64 = REQUESTS as f64 / 2.0;
    let warmth = |age: Duration| (age.as_secs_f64() / SLOW_START.as_secs_f64()).clamp(0.1, 1.0);
    // Five standard deviations.
    let spread = |expected: f64| 5.0 * (expected * (1.0 - expected / f64::from(REQUESTS))).sqrt();
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{healthCheck: {type: http, path: /healthz, interval: 50ms}, \
                      balance: {algorithm: random, slowStart: 8s}}";
        let agent = web.agent_for_both(node, policy)?;
        let started = Instant::now();
        let say = |up: &str| -> Result<String> {
            let url = format!("http://{}/healthz?up={up}", at(SERVER, PORT));
            web.server.run(["curl", "-sS", &url])?.success()
        };
        say("0")?;
        wait_down(&agent, &at(SERVER, PORT), true)?;
        // Until then the other one is new as well.
        sleep(SLOW_START.saturating_sub(started.elapsed()));
        let before = Instant::now();
        say("1")?;
        wait_down(&agent, &at(SERVER, PORT), false)?;
        let after = Instant::now();
        let mut shares = Vec::new();
        loop {
            let counted = asked(&Web::log(&web.server)?, "/ok");
            // It is as old as this at least when the first request is sent, and at most when the last is.
            let youngest = after.elapsed();
            let url = format!("http://{WEB}/ok?n=[1-{REQUESTS}]");
            web.client
                .run(["curl", "-sS", "-o", "/dev/null", &url])?
                .success()?;
            let oldest = before.elapsed();
            let share = (asked(&Web::log(&web.server)?, "/ok") - counted) as f64;
            let (least, most) = (SHARE * warmth(youngest), SHARE * warmth(oldest));
            ensure!(
                (least - spread(least)..=most + spread(most)).contains(&share),
                "{share} of {REQUESTS}, {oldest:?} after it was well: not {least} to {most}"
            );
            shares.push(share);
            if youngest >= SLOW_START {
                break;
            }
        }
        let (first, last) = (shares.first(), shares.last());
        ensure!(
            first
                .zip(last)
                .is_some_and(|(first, last)| first * 2.0 < *last),
            "{shares:?}"
        );
        Ok(())
    });
}
