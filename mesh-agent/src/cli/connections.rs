//! `mesh-agent connections`.

use super::{Output, Reading, output};
use crate::admin::{client, model::Connection};

/// Prints the open connections of the running agent.
pub fn run(reading: &Reading) -> anyhow::Result<()> {
    let connections: Vec<Connection> = client::get(&reading.admin_socket, "/connections")?;
    if reading.output == Output::Json {
        return Ok(output::json(&connections)?);
    }
    let mut table = output::table([
        "POD",
        "DIRECTION",
        "CLIENT",
        "ORIGINAL DESTINATION",
        "VIA",
        "PROTOCOL",
        "PROCESS",
        "AGE",
        "SENT",
        "RECEIVED",
    ]);
    for connection in connections {
        table.add_row([
            connection.pod,
            connection.direction.to_string(),
            connection.client.to_string(),
            connection.original_destination.to_string(),
            connection.via.to_string(),
            match (connection.protocol, connection.server_name) {
                (Some(spoken), Some(name)) => format!("{spoken} {name}"),
                (Some(spoken), None) => spoken.to_string(),
                (None, _) => "-".to_owned(),
            },
            connection
                .process
                .map_or_else(|| "-".to_owned(), |process| process.to_string()),
            output::seconds(connection.age_seconds),
            output::bytes(connection.bytes_sent),
            output::bytes(connection.bytes_received),
        ]);
    }
    Ok(output::print_table(&table)?)
}
