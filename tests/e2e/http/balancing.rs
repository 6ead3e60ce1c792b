//! Requests are spread over the servers of a destination, and kept from those that fail.

use anyhow::ensure;
use mesh_tests::{scenario, wait_until};
use serde_json::Value;

use super::{BOUND, PORT, WEB, Web, asked};
use crate::peers::{OTHER, SERVER, at};

#[test]
fn servers_have_turns_by_weight() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{balance: {algorithm: round-robin}}";
        let config = web.config(node, &[&at(SERVER, PORT), &at(OTHER, PORT)], policy);
        let yaml = config.to_yaml();
        let first = format!("{{address: '{}'}}", at(SERVER, PORT));
        ensure!(yaml.contains(&first));
        let weighted = first.replace('}', ", weight: 3}");
        let agent = node.agent(&config)?;
        let spread = || -> anyhow::Result<(u64, u64)> {
            let before = (Web::log(&web.server)?, Web::log(&web.other)?);
            let url = format!("http://{WEB}/ok?n=[1-40]");
            web.client
                .run(["curl", "-sS", "-o", "/dev/null", &url])?
                .success()?;
            let after = (Web::log(&web.server)?, Web::log(&web.other)?);
            Ok((
                asked(&after.0, "/ok") - asked(&before.0, "/ok"),
                asked(&after.1, "/ok") - asked(&before.1, "/ok"),
            ))
        };
        let even = spread()?;
        ensure!(even == (20, 20), "{even:?}");
        agent.rewrite_config(&yaml.replace(&first, &weighted))?;
        wait_until(BOUND, "the new weights", || Ok(spread()? == (30, 10)))
    });
}

#[test]
fn by_default_slow_servers_get_little() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent_for_both(node, "{}")?;
        // Warm up with answers that take long on one side: both are asked at least once.
        let url = format!("http://{WEB}/ok?n=[1-60]");
        let parallel = ["curl", "-sS", "-Z", "-o", "/dev/null", &url];
        web.client.run(parallel)?.success()?;
        let destinations = agent.json("destinations")?;
        let tries: Vec<u64> = destinations[0]["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|endpoint| endpoint["tries"].as_u64())
            .collect();
        ensure!(
            tries.len() == 2 && tries.iter().all(|tries| *tries > 3),
            "{destinations}"
        );
        ensure!(destinations[0]["answered"]["2xx"] == 60, "{destinations}");
        Ok(())
    });
}

#[test]
fn a_key_leads_to_one_server() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{balance: {algorithm: consistent-hash, key: 'header:x-user'}}";
        let _agent = web.agent_for_both(node, policy)?;
        let mut homes = Vec::new();
        for user in 0..8 {
            let header = format!("X-User: {user}");
            let home = web.curl(&["-H", &header], "/ok")?;
            for _ in 0..3 {
                ensure!(web.curl(&["-H", &header], "/ok")? == home);
            }
            homes.push(home);
        }
        homes.sort();
        homes.dedup();
        ensure!(homes.len() == 2, "all users on one server: {homes:?}");
        Ok(())
    });
}

#[test]
fn a_server_that_fails_is_out_of_rotation_for_a_while() {
    scenario(|node| {
        let web = Web::new(node)?;
        let dead = at(SERVER, 1);
        let policy = "{balance: {algorithm: round-robin}, \
                      breaker: {ejection: {consecutive: 3, base: 2s}}}";
        let agent = node.agent(&web.config(node, &[&dead, &at(OTHER, PORT)], policy))?;
        let refused = || -> anyhow::Result<usize> {
            let statuses = (0..12).map(|_| Ok(web.status(&[], "/ok")?.0));
            let statuses: Vec<u16> = statuses.collect::<anyhow::Result<_>>()?;
            Ok(statuses.iter().filter(|status| **status == 503).count())
        };
        let first = refused()?;
        // Connections that were made before the client spoke count as well.
        ensure!(
            (1..=3).contains(&first),
            "{first} were refused until it was out"
        );
        ensure!(refused()? == 0);
        let state = |agent: &mesh_tests::Agent| -> anyhow::Result<Value> {
            Ok(agent.json("destinations")?[0]["endpoints"][0].clone())
        };
        ensure!(state(&agent)?["ejectedForSeconds"].as_f64() > Some(0.0));
        let table = agent.verb(["destinations"])?;
        ensure!(
            table.contains("out for") && table.contains("connect_failure"),
            "{table}"
        );
        wait_until(BOUND, "it to be in rotation again", || {
            Ok(state(&agent)?["ejectedForSeconds"].is_null())
        })?;
        ensure!(refused()? > 0);
        Ok(())
    });
}

#[test]
fn hosts_tell_destinations_on_one_address_apart() {
    scenario(|node| {
        let web = Web::new(node)?;
        let one = at(SERVER, PORT);
        let other = at(OTHER, PORT);
        let config = node.config().pod(&web.client).after(&format!(
            "destinations:\n\
             - {{name: one, addresses: [{WEB}], port: 80, endpoints: [{{address: '{one}'}}]}}\n\
             - {{name: other, hosts: [other.demo, '*.wild.demo'], port: 80, \
                 endpoints: [{{address: '{other}'}}]}}"
        ));
        let _agent = node.agent(&config)?;
        for (host, server) in [
            ("other.demo", "other"),
            ("Other.Demo:80", "other"),
            ("a.wild.demo", "other"),
            ("wild.demo", "server"),
            ("elsewhere", "server"),
        ] {
            let header = format!("Host: {host}");
            let answer = web.curl(&["-H", &header], "/ok")?;
            ensure!(answer == server, "{host}: {answer}");
        }
        Ok(())
    });
}

#[test]
fn destinations_that_are_not_listed_get_the_defaults() {
    scenario(|node| {
        let web = Web::new(node)?;
        let config = node.config().pod(&web.client);
        let with = "defaults: {policy: {timeouts: {request: 300ms}}}";
        let url = format!("http://{}/slow?ms=600", at(SERVER, PORT));
        let status = || -> anyhow::Result<String> {
            let form = "%{http_code}";
            web.client
                .run(["curl", "-sS", "-o", "/dev/null", "-w", form, &url])?
                .success()
        };
        let agent = node.agent(&config)?;
        ensure!(status()? == "200");
        ensure!(agent.json("destinations")? == serde_json::json!([]));
        agent.rewrite_config(&config.after(with).to_yaml())?;
        wait_until(BOUND, "the defaults", || Ok(status()? == "504"))?;
        let destinations = agent.json("destinations")?;
        ensure!(
            destinations[0]["name"] == at(SERVER, PORT),
            "{destinations}"
        );
        Ok(())
    });
}

#[test]
fn servers_in_the_zone_of_the_node_come_first() {
    scenario(|node| {
        let web = Web::new(node)?;
        let config = web.config(node, &[&at(SERVER, PORT), &at(OTHER, PORT)], "{}");
        let zoned = |zone: &str| {
            let yaml = config.to_yaml();
            let yaml = yaml.replace(
                &format!("'{}'", at(SERVER, PORT)),
                &format!("'{}', zone: a", at(SERVER, PORT)),
            );
            let yaml = yaml.replace(
                &format!("'{}'", at(OTHER, PORT)),
                &format!("'{}', zone: b", at(OTHER, PORT)),
            );
            yaml.replacen("agent:", &format!("agent:\n  zone: {zone}"), 1)
        };
        let agent = node.agent(&config)?;
        for (zone, name) in [("a", "server"), ("b", "other")] {
            let yaml = zoned(zone);
            agent.rewrite_config(&yaml)?;
            wait_until(BOUND, "all to stay near", || {
                let names = (0..20).map(|_| web.curl(&[], "/ok"));
                let names: Vec<String> = names.collect::<anyhow::Result<_>>()?;
                Ok(names.iter().all(|it| it == name))
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_destination_of_several_addresses_is_one_in_tables_and_metrics() {
    scenario(|node| {
        let web = Web::new(node)?;
        let config = node.config().pod(&web.client).after(&format!(
            "destinations: [{{name: both, addresses: [{SERVER}, {OTHER}], port: {PORT}}}]"
        ));
        let agent = node.agent(&config)?;
        for (address, name) in [(SERVER, "server"), (OTHER, "other")] {
            let url = format!("http://{}/ok", at(address, PORT));
            ensure!(web.client.run(["curl", "-sS", &url])?.success()? == name);
        }
        let destinations = agent.json("destinations")?;
        let count = |value: &Value| value.as_array().map_or(0, Vec::len);
        ensure!(count(&destinations) == 1, "{destinations}");
        ensure!(count(&destinations[0]["endpoints"]) == 2, "{destinations}");
        ensure!(destinations[0]["answered"]["2xx"] == 2, "{destinations}");
        let metrics = agent.metrics()?;
        let line =
            r#"mesh_agent_pod_requests_total{pod="client",destination="both",class="2xx"} 2"#;
        ensure!(
            metrics.lines().any(|it| it == line),
            "{line} is not in {metrics}"
        );
        let mut series: Vec<&str> = metrics
            .lines()
            .filter_map(|line| Some(line.rsplit_once(' ')?.0))
            .filter(|line| !line.starts_with('#'))
            .collect();
        let all = series.len();
        series.sort_unstable();
        series.dedup();
        ensure!(series.len() == all, "a series twice in {metrics}");
        Ok(())
    });
}
