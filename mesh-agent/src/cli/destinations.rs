//! `mesh-agent destinations`.

use super::{Output, Reading, output};
use crate::admin::{
    client,
    model::{Destination, Endpoint},
};

/// Prints the destinations of the running agent, a line for each server.
pub fn run(reading: &Reading) -> anyhow::Result<()> {
    let destinations: Vec<Destination> = client::get(&reading.admin_socket, "/destinations")?;
    if reading.output == Output::Json {
        return Ok(output::json(&destinations)?);
    }
    let mut table = output::table([
        "DESTINATION",
        "ACTIVE",
        "ANSWERED",
        "RETRIES",
        "BY THE AGENT",
        "SERVER",
        "TRIES",
        "FAILED",
        "STATE",
    ]);
    for destination in destinations {
        let mut of_all = [
            destination.name.clone(),
            destination.active.to_string(),
            counts(&destination.answered),
            retries(&destination),
            counts(&destination.own_answers),
        ];
        for server in destination.endpoints {
            let of_server = [
                server.address.to_string(),
                server.tries.to_string(),
                server.failed.to_string(),
                state(&server),
            ];
            table.add_row(of_all.into_iter().chain(of_server));
            // What is the destination's is said once.
            of_all = Default::default();
        }
    }
    Ok(output::print_table(&table)?)
}

fn state(server: &Endpoint) -> String {
    match server.ejected_for_seconds {
        _ if server.is_down => "down by health check".to_owned(),
        Some(left) => format!("out for {}", output::seconds(left)),
        None => "in rotation".to_owned(),
    }
}

/// Those that are not zero.
fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let counts = counts.iter().filter(|(_, count)| **count > 0);
    let texts: Vec<String> = counts
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if texts.is_empty() {
        "-".to_owned()
    } else {
        texts.join(", ")
    }
}

fn retries(destination: &Destination) -> String {
    match (destination.retries, destination.retries_over_budget) {
        (retries, 0) => retries.to_string(),
        (retries, over) => format!("{retries} ({over} over budget)"),
    }
}
