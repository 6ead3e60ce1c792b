//! The dashboard in `deploy/` shows metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::scenario;
use serde_json::Value;

use super::shown::{families, wait_measured};
use super::{EVERY, Exact, WEB};

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

/// Names of metrics in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("mesh_agent_"))
}

#[test]
fn every_metric_of_the_dashboard_exists() {
    scenario(|node| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/mesh-agent.json");
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        let exact = Exact::new(node)?;
        let policy = "{timeouts: {request: 100ms}, breaker: {consecutive: 50}}";
        let agent = node.agent(&exact.config(node, EVERY, policy))?;
        exact.ask("/wait?us=1000", 5, &[])?;
        let late = format!("http://{WEB}/wait?us=300000");
        exact
            .client
            .run(["curl", "-sS", "-o", "/dev/null", &late])?
            .success()?;
        wait_measured(&agent, 5)?;
        let families = families(node, &agent)?;
        let families = families.as_object().context("no families")?;
        let samples = families
            .values()
            .filter_map(|family| family["samples"].as_array());
        let there: BTreeSet<&str> = samples
            .flatten()
            .filter_map(|it| it["name"].as_str())
            .collect();
        let mut expressions = Vec::new();
        texts(&dashboard, "expr", &mut expressions);
        texts(&dashboard, "definition", &mut expressions);
        ensure!(expressions.len() > 15, "{expressions:?}");
        for expression in &expressions {
            ensure!(names(expression).next().is_some(), "{expression}");
            for name in names(expression) {
                ensure!(there.contains(name), "{name} is not in {there:#?}");
            }
        }
        panels_are_side_by_side(&dashboard)
    });
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
