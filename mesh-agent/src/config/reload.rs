//! What of a changed file can take effect in a running agent.

use serde_json::Value;

use super::model::Agent;

/// The `agent.*` fields that differ between the running and the new file, in alphabetical order:
/// they take effect at the next start only. (`zone` does at once: it is about destinations.)
pub fn fields_needing_restart(running: &Agent, new: &Agent) -> Vec<String> {
    let (Ok(Value::Object(running)), Ok(Value::Object(new))) =
        (serde_json::to_value(running), serde_json::to_value(new))
    else {
        return Vec::new();
    };
    let mut changed: Vec<String> = new
        .into_iter()
        .filter(|(field, _)| field != "zone")
        .filter(|(field, value)| running.get(field) != Some(value))
        .map(|(field, _)| format!("agent.{field}"))
        .collect();
    changed.sort();
    changed
}
