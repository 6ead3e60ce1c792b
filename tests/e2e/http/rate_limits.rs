//! No more requests in a time than the policy allows, whoever asks.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use mesh_tests::{scenario, wait_until};

use super::{BOUND, WEB, Web, asked};

impl Web {
    /// The statuses of so many requests one after the other.
    fn statuses(&self, arguments: &[&str], path: &str, count: usize) -> Result<Vec<u16>> {
        let one = |_| Ok(self.status(arguments, path)?.0);
        (0..count).map(one).collect()
    }

    /// The statuses of so many requests at once.
    pub(super) fn statuses_at_once(&self, path: &str, count: usize) -> Result<Vec<u16>> {
        let url = format!("http://{WEB}{path}&number=[1-{count}]");
        let most = count.to_string();
        let text = self
            .client
            .run([
                "curl",
                "-sS",
                "-Z",
                "--parallel-immediate",
                "--parallel-max",
                &most,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}\\n",
                "--max-time",
                "15",
                &url,
            ])?
            .success()?;
        let mut statuses: Vec<u16> = text
            .lines()
            .map(|line| Ok(line.parse()?))
            .collect::<Result<_>>()?;
        statuses.sort_unstable();
        Ok(statuses)
    }
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|it| **it == status).count()
}

#[test]
fn what_is_beyond_a_rate_is_refused_with_when_to_come_again() {
    scenario(|node| {
        let web = Web::new(node)?;
        for (name, algorithm) in [
            ("fixed-window", "fixed-window"),
            ("sliding-window", "sliding-window"),
            ("sliding-log", "sliding-log"),
            ("token-bucket", "token-bucket"),
        ] {
            let policy =
                format!("{{limits: {{rate: [{{algorithm: {algorithm}, limit: 5, per: 1m}}]}}}}");
            let agent = web.agent(node, &policy)?;
            let statuses = web.statuses(&[], "/ok", 8)?;
            ensure!(
                statuses == [200, 200, 200, 200, 200, 429, 429, 429],
                "{name}: {statuses:?}"
            );
            let form = "%{http_code} %header{x-mesh-reason} %header{x-mesh-no-retry} \
                        %header{ratelimit-limit} %header{ratelimit-remaining} %header{retry-after}";
            let told = web.curl(&["-o", "/dev/null", "-w", form], "/ok")?;
            let (told, after) = told.rsplit_once(' ').unwrap_or_default();
            ensure!(told == "429 rate_limited refused 5 0", "{name}: {told}");
            ensure!((1..=60).contains(&after.parse::<u32>()?), "{name}: {after}");
            let form = "%header{grpc-status} %header{x-mesh-reason}";
            let call = [
                "--http2-prior-knowledge",
                "-H",
                "content-type: application/grpc",
            ];
            let told = web.curl(
                &[&call[..], &["-o", "/dev/null", "-w", form]].concat(),
                "/ok",
            )?;
            ensure!(
                told == "8 rate_limited",
                "{name}: RESOURCE_EXHAUSTED, not {told}"
            );
            let destinations = agent.json("destinations")?;
            ensure!(
                destinations[0]["ownAnswers"]["rate_limited"] == 5,
                "{name}: {destinations}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_leaky_bucket_makes_requests_wait_for_their_turn() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{limits: {rate: [{algorithm: leaky-bucket, limit: 10, per: 1s, burst: 9}]}}";
        let _agent = web.agent(node, policy)?;
        let begun = std::time::Instant::now();
        let statuses = web.statuses_at_once("/ok?a", 15)?;
        let took = begun.elapsed();
        // One at once and nine that wait; the drops that leak out meanwhile make room for one or two.
        let good = count(&statuses, 200);
        ensure!(
            (10..=12).contains(&good) && good + count(&statuses, 429) == 15,
            "{statuses:?}"
        );
        ensure!(took.as_millis() >= 850, "ten requests took {took:?}");
        Ok(())
    });
}

#[test]
fn pods_and_headers_are_counted_apart_and_all_levels_hold_at_once() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy =
            "{limits: {rate: [{limit: 5, per: 1m}, {limit: 3, per: 1m, by: 'header:x-tenant'}]}}";
        let _agent = web.agent(node, policy)?;
        let statuses = web.statuses(&["-H", "x-tenant: one"], "/ok", 4)?;
        ensure!(statuses == [200, 200, 200, 429], "{statuses:?}");
        // What the first was refused did not count for all.
        let statuses = web.statuses(&["-H", "x-tenant: two"], "/ok", 3)?;
        ensure!(statuses == [200, 200, 429], "{statuses:?}");
        Ok(())
    });
}

#[test]
fn what_only_observes_refuses_nothing_and_says_what_it_would() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{mode: observe, limits: {rate: [{limit: 2, per: 1m}]}}";
        let agent = web.agent(node, policy)?;
        ensure!(web.statuses(&[], "/ok", 6)? == [200; 6]);
        let destinations = agent.json("destinations")?;
        ensure!(
            destinations[0]["wouldRefuse"]["rate_limited"] == 4,
            "{destinations}"
        );
        ensure!(
            destinations[0]["ownAnswers"] == serde_json::json!({}),
            "{destinations}"
        );
        let table = agent.verb(["destinations"])?;
        ensure!(table.contains("rate_limited 4"), "{table}");
        let line = r#"mesh_agent_would_refuse_total{destination="web",reason="rate_limited"} 4"#;
        let metrics = agent.metrics()?;
        ensure!(
            metrics.lines().any(|it| it == line),
            "{line} is not in {metrics}"
        );
        let log = agent.log()?;
        ensure!(
            log.contains("destination web: mode observe: would refuse a request"),
            "{log}"
        );
        // And from now on it does.
        let enforced = web.config(
            node,
            &[&crate::peers::at(super::SERVER, super::PORT)],
            "{limits: {rate: [{limit: 2, per: 1m}]}}",
        );
        agent.rewrite_config(&enforced.to_yaml())?;
        wait_until(BOUND, "the limit to act", || {
            Ok(web.status(&[], "/ok")?.0 == 429)
        })
    });
}

#[test]
fn a_rate_follows_failures_down_and_up_again() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{limits: {rate: [{algorithm: sliding-log, limit: 20, per: 1s, \
                      follow: [{failureRatio: 0.2, factor: 0.1}]}]}}";
        let _agent = web.agent(node, policy)?;
        let statuses = web.statuses_at_once("/ok?a", 15)?;
        ensure!(count(&statuses, 200) == 15, "{statuses:?}");
        wait_until(BOUND, "the limit to be lowered", || {
            let _failed = web.statuses_at_once("/status?code=500", 4)?;
            let statuses = web.statuses_at_once("/status?code=500", 15)?;
            Ok(count(&statuses, 500) <= 2 && count(&statuses, 429) >= 13)
        })?;
        // Ten seconds later nobody remembers. If it is back while these are asked, those that pass leave no room for 15
        // within a second.
        wait_until(BOUND, "the limit to be back", || {
            thread::sleep(Duration::from_secs(1));
            let statuses = web.statuses_at_once("/ok?a", 15)?;
            Ok(count(&statuses, 200) == 15)
        })
    });
}

#[test]
fn critical_requests_go_last() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy =
            "{critical: ['path:/pay', 'header:x-vip'], limits: {rate: [{limit: 20, per: 1m}]}}";
        let _agent = web.agent(node, policy)?;
        let statuses = web.statuses(&[], "/ok", 20)?;
        ensure!(count(&statuses, 200) == 18, "a tenth is kept: {statuses:?}");
        ensure!(web.status(&[], "/pay")?.0 == 200);
        ensure!(web.status(&["-H", "x-vip: 1"], "/ok")?.0 == 200);
        ensure!(
            web.status(&["-A", "kube-probe/1.34"], "/ok")?.0 == 429,
            "a limit is a limit"
        );
        let log = Web::log(&web.server)?;
        ensure!(asked(&log, "/ok") + asked(&log, "/pay") == 20, "{log}");
        Ok(())
    });
}
