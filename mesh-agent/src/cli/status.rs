//! `mesh-agent status`.

use super::{Output, Reading, output};
use crate::admin::{client, model::Status, pod_sockets::Measured};

/// Prints what the running agent is doing.
pub fn run(reading: &Reading) -> anyhow::Result<()> {
    let status: Status = client::get(&reading.admin_socket, "/status")?;
    if reading.output == Output::Json {
        return Ok(output::json(&status)?);
    }
    let fact = |name: &str, value: String| output::line(&format!("{name:<13}{value}"));
    fact(
        "agent",
        format!(
            "{} (version {}, process {}, up {})",
            if status.ready { "ready" } else { "not ready" },
            status.version,
            status.pid,
            output::seconds(status.uptime_seconds),
        ),
    )?;
    fact("cgroup", status.cgroup.display().to_string())?;
    fact("pins", status.pin_path.display().to_string())?;
    fact(
        "pods",
        format!(
            "{} configured, {} enrolled",
            status.pods.configured, status.pods.enrolled
        ),
    )?;
    fact(
        "connections",
        format!(
            "{} open, {} since the start, {} whose server could not be reached",
            status.connections.open, status.connections.total, status.connections.failed,
        ),
    )?;
    fact(
        "descriptors",
        format!(
            "{} open of {} (a connection takes 2)",
            status.descriptors.open, status.descriptors.limit
        ),
    )?;
    if let Some(sockets) = status.pod_sockets.filter(Measured::is_of_interest) {
        fact("pod sockets", sockets.to_string())?;
    }
    if let Some(error) = &status.config_error {
        fact(
            "config",
            format!("the file on disk is NOT applied: {error}"),
        )?;
    }
    output::line("")?;
    let mut table = output::table(["COUNTER", "VALUE", "WHAT IT COUNTS"]);
    for counter in &status.counter_help {
        let value = status
            .counters
            .get(&counter.name)
            .copied()
            .unwrap_or_default();
        table.add_row([
            counter.name.clone(),
            value.to_string(),
            counter.help.clone(),
        ]);
    }
    Ok(output::print_table(&table)?)
}
