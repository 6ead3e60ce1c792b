//! The dashboard in `deploy/`, by a real Prometheus that asks a real agent.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mesh_tests::{Scenario, wait_until};
use serde_json::{Value, json};

use super::prometheus::{Prometheus, filled_in};
use super::{BOUND, EVERY, Exact, WEB};
use crate::peers::{SERVER, at};

/// How long it may take until everything has happened that the dashboard shows, and was scraped.
const SHOWN: Duration = Duration::from_mins(2);

/// Panels where nothing is what there is to be: the budget allowed all further tries.
const MAY_BE_EMPTY: &str = "mesh_agent_retries_over_budget_total";

fn dashboard() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/mesh-agent.json");
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

/// All texts under keys of this name.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|field| texts(field, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

/// The panels' expressions, with whether they are asked for one moment.
fn expressions(dashboard: &Value) -> Result<Vec<(&Value, String, bool)>> {
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| Some((panel, panel["targets"].as_array()?)));
    let each = targets.flat_map(|(panel, targets)| targets.iter().map(move |it| (panel, it)));
    each.map(|(panel, target)| {
        let expression = target["expr"].as_str().context("no expression")?;
        ensure!(
            target["instant"] != target["range"],
            "one of both: {target}"
        );
        let at_once = target["instant"] == true;
        Ok((panel, filled_in(expression), at_once))
    })
    .collect()
}

/// `label_values(SERIES, LABEL)`, as Grafana asks for the values of a variable.
fn label_values(definition: &str) -> Result<(String, &str)> {
    let inner = definition
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'))
        .context("no label_values")?;
    let (series, label) = inner.rsplit_once(", ").context("no label")?;
    Ok((filled_in(series), label))
}

#[test]
fn every_panel_and_every_variable_has_something_to_show() {
    Scenario::default()
        .bound(Duration::from_mins(4))
        .run(|node| {
            let dashboard = dashboard()?;
            let exact = Exact::new(node)?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let server = at(SERVER, super::PORT);
            let config = node.config().pod(&exact.client).after(&format!(
                "destinations:\n\
                 - {{name: web, hosts: [web.demo], addresses: [{WEB}], port: 80, \
                 endpoints: [{{address: '{server}'}}], \
                 policy: {{timeouts: {{request: 100ms}}, breaker: {{consecutive: 50}}}}}}\n\
                 - {{name: stock, addresses: [10.96.0.11], port: 80, \
                 endpoints: [{{address: '{SERVER}:9'}}], \
                 policy: {{retries: {{attempts: 1}}, breaker: {{consecutive: 3}}}}}}\n\
                 - {{name: reviews, addresses: [10.96.0.12], port: 80, \
                 endpoints: [{{address: '{server}'}}]}}\n{EVERY}"
            ));
            let agent = node.agent(&config.agent(&format!("metrics: 127.0.0.1:{port}")))?;
            let prometheus = Prometheus::of(node, port)?;
            // A server that is late now and then; one that is not there; large answers.
            let traffic = "trace=00-64e391fa27a2fd0764fd7851715c2308-00f067aa0ba902b7-01\n\
                 while sleep 0.03; do\n\
                 curl -s -m 3 -o /dev/null -H \"traceparent: $trace\" http://10.96.0.10/wait?us=5000\n\
                 curl -s -m 3 -o /dev/null http://10.96.0.12/body?bytes=262144\\&us=2000\n\
                 n=$((n + 1))\n\
                 [ $((n % 20)) = 0 ] && curl -s -m 3 -o /dev/null http://10.96.0.10/wait?us=300000\n\
                 curl -s -m 3 -o /dev/null http://10.96.0.11/\n\
                 done";
            let _traffic = exact.client.spawn(["sh", "-c", traffic])?;
            let expressions = expressions(&dashboard)?;
            ensure!(expressions.len() > 25, "{}", expressions.len());
            for (panel, expression, at_once) in &expressions {
                let is_shown = || -> Result<bool> {
                    let series = prometheus.now(expression)?;
                    let is_number = |it: &Value| it["value"][1] != "NaN";
                    Ok(!series.is_empty() && series.iter().any(is_number))
                };
                if expression.contains(MAY_BE_EMPTY) {
                    prometheus.now(expression)?;
                    continue;
                }
                let title = &panel["title"];
                wait_until(SHOWN, &format!("{title} ({at_once}): {expression}"), is_shown)?;
            }
            let mut definitions = Vec::new();
            texts(&dashboard, "definition", &mut definitions);
            ensure!(definitions.len() == 3, "{definitions:?}");
            for definition in definitions {
                let (series, label) = label_values(definition)?;
                let values = prometheus.now(&format!("group by ({label}) ({series})"))?;
                let is_there = |it: &Value| it["metric"][label].is_string();
                ensure!(!values.is_empty() && values.iter().all(is_there), "{label}: {values:?}");
            }
            shares_are_whole(&prometheus, &expressions)?;
            exemplars_lead_to_the_trace(&prometheus, &dashboard)?;
            if let Ok(directory) = std::env::var("MESH_TEST_SHOTS") {
                // For who draws them.
                std::thread::sleep(Duration::from_secs(45));
                let all = all_data(&prometheus, &expressions)?;
                fs::write(Path::new(&directory).join("dashboard.json"), all.to_string())?;
            }
            agent.terminate(BOUND)
        });
}

/// The bars of the first panel are all of the time.
fn shares_are_whole(
    prometheus: &Prometheus<'_>,
    expressions: &[(&Value, String, bool)],
) -> Result<()> {
    let (panel, expression, _) = &expressions[0];
    let series = prometheus.now(expression)?;
    ensure!(series.len() == 8, "{}: {series:?}", panel["title"]);
    let shares = series
        .iter()
        .filter_map(|it| it["value"][1].as_str()?.parse::<f64>().ok());
    let whole: f64 = shares.sum();
    ensure!((whole - 1.0).abs() < 0.01, "{whole}: {series:?}");
    Ok(())
}

/// The dots of the panels that have them.
fn exemplars_lead_to_the_trace(prometheus: &Prometheus<'_>, dashboard: &Value) -> Result<()> {
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let with_dots: Vec<&str> = targets
        .flatten()
        .filter(|target| target["exemplar"] == true)
        .filter_map(|target| target["expr"].as_str())
        .collect();
    ensure!(!with_dots.is_empty(), "no panel has dots");
    for expression in with_dots {
        let query = filled_in(expression);
        let parameters = [("query", &*query), ("start", "0"), ("end", "99999999999")];
        let found = prometheus.ask("query_exemplars", &parameters)?;
        let text = found.to_string();
        if !text.contains("64e391fa27a2fd0764fd7851715c2308") {
            bail!("no exemplar with the trace: {text}");
        }
    }
    Ok(())
}

/// What Grafana would get for each expression.
fn all_data(prometheus: &Prometheus<'_>, expressions: &[(&Value, String, bool)]) -> Result<Value> {
    let each = expressions.iter().map(|(panel, expression, at_once)| {
        let data = if *at_once {
            prometheus.ask("query", &[("query", expression)])?
        } else {
            prometheus.lately(expression, 60.0)?
        };
        Ok(json!({"panel": panel["id"], "expression": expression, "data": data}))
    });
    Ok(Value::Array(each.collect::<Result<_>>()?))
}

#[test]
fn the_dashboard_s_panels_fit_beside_each_other() {
    panels_are_side_by_side(&dashboard().unwrap()).unwrap();
}

/// Each panel has an id and a place of its own, and asks the source that the person chose.
fn panels_are_side_by_side(dashboard: &Value) -> Result<()> {
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        ensure!(
            ids.insert(panel["id"].as_u64()),
            "two panels have one id: {panel}"
        );
        let place = |key: &str| panel["gridPos"][key].as_u64().context("no place");
        let (left, top) = (place("x")?, place("y")?);
        ensure!(left + place("w")? <= 24, "{panel}");
        for x in left..left + place("w")? {
            for y in top..top + place("h")? {
                ensure!(
                    taken.insert((x, y)),
                    "something else is where {} is",
                    panel["title"]
                );
            }
        }
        let mut sources = Vec::new();
        texts(panel, "uid", &mut sources);
        ensure!(
            sources.iter().all(|uid| *uid == "${datasource}"),
            "{sources:?}"
        );
        ensure!(panel["type"] == "row" || !sources.is_empty(), "{panel}");
    }
    Ok(())
}
