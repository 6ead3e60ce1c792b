//! Rates that the agents of several nodes count together, in a real Redis.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use mesh_tests::{Agent, Node, Process, scenario, wait_until};

use super::{BOUND, PORT, WEB, Web};
use crate::peers::{SERVER, at};

/// A Redis of its own, and its URL.
fn redis(node: &Node, port: u16) -> Result<(Process, String)> {
    let mut redis = node.spawn(
        "redis",
        [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ],
    )?;
    redis.wait_stdout("Ready to accept connections", BOUND)?;
    Ok((redis, format!("redis://127.0.0.1:{port}")))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn agent(node: &Node, web: &Web, url: &str, rate: &str) -> Result<Agent> {
    let policy = format!("{{limits: {{rate: [{rate}]}}}}");
    let config = web.config(node, &[&at(SERVER, PORT)], &policy);
    node.agent(&config.agent(&format!("redis: {url}")))
}

/// How many of so many requests, one after the other, are let through.
fn let_through(web: &Web, requests: usize) -> Result<usize> {
    let statuses = (0..requests).map(|_| Ok(web.status(&[], "/ok")?.0));
    let statuses: Vec<u16> = statuses.collect::<Result<_>>()?;
    ensure!(
        statuses.iter().all(|it| [200, 429].contains(it)),
        "{statuses:?}"
    );
    Ok(statuses.iter().filter(|it| **it == 200).count())
}

#[test]
fn two_nodes_together_get_no_more_than_one_would() {
    scenario(|node| {
        let other_node = Node::new()?;
        let (web, other_web) = (Web::new(node)?, Web::new(&other_node)?);
        let (_redis, url) = redis(node, free_port()?)?;
        for algorithm in [
            "fixed-window",
            "sliding-window",
            "sliding-log",
            "token-bucket",
        ] {
            let rate = format!("{{algorithm: {algorithm}, limit: 7, per: 1m, shared: true}}");
            let agent = agent(node, &web, &url, &rate)?;
            let other_agent = self::agent(&other_node, &other_web, &url, &rate)?;
            let one = let_through(&web, 4)?;
            let other = let_through(&other_web, 6)?;
            let again = let_through(&web, 2)?;
            ensure!(
                (one, other, again) == (4, 3, 0),
                "{algorithm}: {one}, {other}, {again}"
            );
            let form = "%header{retry-after} %header{ratelimit-limit}";
            let told = web.curl(&["-o", "/dev/null", "-w", form], "/ok")?;
            let after: u32 = told.split(' ').next().unwrap_or_default().parse()?;
            ensure!((1..=60).contains(&after) && told.ends_with(" 7"), "{told}");
            drop((agent, other_agent));
            let port = url.rsplit(':').next().unwrap_or_default();
            node.spawn("redis-cli", ["redis-cli", "-p", port, "FLUSHALL"])?
                .finish(BOUND)?
                .success()?;
        }
        Ok(())
    });
}

#[test]
fn a_leaky_bucket_spaces_what_all_nodes_send() {
    scenario(|node| {
        let web = Web::new(node)?;
        let (_redis, url) = redis(node, free_port()?)?;
        let rate = "{algorithm: leaky-bucket, limit: 10, per: 1s, burst: 20, shared: true}";
        let _agent = agent(node, &web, &url, rate)?;
        // The first request connects to Redis; those beside it would count alone.
        ensure!(web.status(&[], "/ok")?.0 == 200);
        let begun = std::time::Instant::now();
        let statuses = web.statuses_at_once("/ok?a", 8)?;
        ensure!(statuses == [200; 8], "{statuses:?}");
        ensure!(
            begun.elapsed().as_millis() >= 690,
            "{:?} for eight, a tenth of a second apart",
            begun.elapsed()
        );
        Ok(())
    });
}

#[test]
fn each_agent_counts_alone_while_redis_is_away() {
    scenario(|node| {
        let web = Web::new(node)?;
        let port = free_port()?;
        let (mut server, url) = redis(node, port)?;
        let rate = "{limit: 5, per: 1h, shared: true}";
        let agent = agent(node, &web, &url, rate)?;
        ensure!(let_through(&web, 7)? == 5);
        server.kill()?;
        // Its own count begins now; no request waits or fails.
        ensure!(let_through(&web, 7)? == 5);
        ensure!(agent.log()?.contains("counts alone"), "{}", agent.log()?);
        let _again = redis(node, port)?;
        wait_until(BOUND, "Redis to be asked again", || {
            let_through(&web, 1)?;
            Ok(agent.log()?.contains("answers again"))
        })?;
        let destinations = agent.json("destinations")?;
        ensure!(destinations[0]["name"] == "web", "{WEB}: {destinations}");
        Ok(())
    });
}
