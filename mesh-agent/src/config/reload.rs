//! What of a changed file can take effect in a running agent.

use serde::Serialize;
use serde_json::Value;

use super::model::Config;

/// What of `agent` takes effect at once: it is about destinations.
const AT_ONCE_OF_AGENT: &[&str] = &["zone"];
/// What of `latency` takes effect at once.
const AT_ONCE_OF_LATENCY: &[&str] = &["sample", "mostPerSecond", "serverTiming"];

/// The fields of `agent` and `latency` that differ between the running and the new file and take effect at
/// the next start only, in alphabetical order.
pub fn fields_needing_restart(running: &Config, new: &Config) -> Vec<String> {
    let agent = changed(&running.agent, &new.agent, "agent", AT_ONCE_OF_AGENT);
    let latency = (&running.latency, &new.latency);
    let latency = changed(latency.0, latency.1, "latency", AT_ONCE_OF_LATENCY);
    let mut fields: Vec<String> = agent.into_iter().chain(latency).collect();
    fields.sort();
    fields
}

fn changed<T: Serialize>(running: &T, new: &T, section: &str, at_once: &[&str]) -> Vec<String> {
    let (Ok(Value::Object(running)), Ok(Value::Object(new))) =
        (serde_json::to_value(running), serde_json::to_value(new))
    else {
        return Vec::new();
    };
    let fields = running.keys().chain(new.keys());
    let mut changed: Vec<String> = fields
        .filter(|field| !at_once.contains(&field.as_str()))
        .filter(|field| running.get(*field) != new.get(*field))
        .map(|field| format!("{section}.{field}"))
        .collect();
    changed.sort();
    changed.dedup();
    changed
}
