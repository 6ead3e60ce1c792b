//! How verbs print: tables for people, JSON for programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::one_line::one_line;

/// What a verb prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Prints a line. A reader that went away (`| head`) is not an error.
pub fn line(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Prints what went wrong, as one line on standard error.
pub fn error(error: &anyhow::Error) {
    // Nowhere left to say it if this fails.
    let _nowhere = writeln!(io::stderr().lock(), "error: {}", one_line(error));
}

/// Prints `value` as JSON.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value).map_err(io::Error::other)?)
}

/// An empty table with these headings.
pub fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings);
    table
}

/// A table without the spaces at its lines' ends.
pub fn print_table(table: &Table) -> io::Result<()> {
    for row in table.to_string().lines() {
        line(row.strip_prefix(' ').unwrap_or(row).trim_end())?;
    }
    Ok(())
}

/// The items with commas, or a dash.
pub fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

/// A number of bytes, for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A number of seconds, for people.
pub fn seconds(count: f64) -> String {
    let whole = count as u64;
    match whole {
        0..=59 => format!("{count:.1}s"),
        60..=3599 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}
