//! `mesh-agent validate FILE`: checks a configuration file without applying it.

use std::path::PathBuf;

use clap::Args;

use super::{Output, output};
use crate::config;

/// Check a configuration file without applying it.
#[derive(Debug, Args)]
pub struct Validate {
    /// The file.
    file: PathBuf,
    /// A line for people, or JSON (the configuration with its defaults filled in) for programs.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Validate {
    /// Says whether the file is valid.
    pub fn run(&self) -> anyhow::Result<()> {
        let loaded = config::load(&self.file)?;
        match self.output {
            Output::Json => output::json(&serde_json::json!({
                "valid": true,
                "warnings": loaded.warnings,
                "config": loaded.config,
            }))?,
            Output::Table => {
                for warning in &loaded.warnings {
                    output::line(&format!("warning: {warning}"))?;
                }
                let count = loaded.config.pods.len();
                output::line(&format!(
                    "{}: valid, {count} pod{}",
                    self.file.display(),
                    if count == 1 { "" } else { "s" }
                ))?;
            }
        }
        Ok(())
    }
}
