//! `mesh-agent schema`: the JSON Schema of the configuration file.

use super::output;
use crate::config;

/// Prints the schema.
pub fn run() -> anyhow::Result<()> {
    Ok(output::json(&config::schema())?)
}
