//! `mesh-agent pods`.

use super::{Output, Reading, output};
use crate::admin::{
    client,
    model::{Overload, Pod},
};

/// Prints the pods of the running agent.
pub fn run(reading: &Reading) -> anyhow::Result<()> {
    let pods: Vec<Pod> = client::get(&reading.admin_socket, "/pods")?;
    if reading.output == Output::Json {
        return Ok(output::json(&pods)?);
    }
    let mut table = output::table([
        "POD",
        "STATE",
        "NETNS",
        "COOKIE",
        "PROXY",
        "WITHOUT AGENT",
        "OPEN",
        "TOTAL",
        "DNS",
        "SERVERS",
        "LOAD",
        "REASON",
    ]);
    for pod in pods {
        table.add_row([
            pod.name,
            pod.state.to_string(),
            pod.netns.display().to_string(),
            pod.netns_cookie
                .map_or_else(|| "-".to_owned(), |cookie| cookie.to_string()),
            pod.proxy,
            pod.on_agent_down,
            pod.connections.to_string(),
            pod.connections_total.to_string(),
            pod.dns
                .map_or_else(|| "-".to_owned(), |dns| dns.queries.to_string()),
            output::list(&pod.servers),
            pod.overload
                .map_or_else(|| "-".to_owned(), |load| self::load(&load)),
            pod.reason.unwrap_or_default(),
        ]);
    }
    Ok(output::print_table(&table)?)
}

/// Requests that its servers work on, and those that do not get as far.
fn load(load: &Overload) -> String {
    let waiting = match load.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} wait"),
    };
    let level = load.admits_up_to.as_ref();
    let level = level.map(|level| format!(", admits up to {level}"));
    let level = level.unwrap_or_default();
    format!("{} of {}{waiting}{level}", load.active, load.most)
}
