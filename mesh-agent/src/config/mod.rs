//! The one configuration file: its schema, how it is read, and what is said when it is wrong.
//!
//! [`parse`] goes in three steps: the typed parse, the untyped tree that knows where each value was
//! written, and the rules that types cannot express. The first thing that is wrong ends it, as a
//! [`ConfigError`] of one line.

mod accepted;
mod document;
mod error;
mod explain;
mod field_path;
mod finding;
mod latency;
mod model;
mod overload;
mod policy;
mod reload;
#[cfg(test)]
mod tests;
mod validate;
mod values;
mod yaml;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize as _;
use serde_path_to_error::{Deserializer, Track};

pub use error::ConfigError;
pub use latency::{HardwareStamps, Latency, PodSockets};
pub use model::{
    Agent, Capture, Config, Defaults, Destination, Endpoint, InboundSteering, OnAgentDown, Pod,
    Protocol, Proxy, Tracing,
};
pub use overload::{AdmissionControl, LifoRule, Overload, WaitingQueue};
pub use policy::{
    Adaptive, AdaptiveRange, BackoffSpans, Balance, BalanceAlgorithm, Breaker, Budget, CallWindow,
    Ejection, Fallback, FollowRule, HalfOpenSteps, HealthCheck, HealthCheckKind, Hedge, Limits,
    MOST_FOLLOW_RULES, Measure, Mode, OpenSpans, Policy, Rate, RateAlgorithm, RateKey, Retries,
    SlowCall, Throttling, Timeouts,
};
pub use reload::fields_needing_restart;
pub use values::{AccessLogTarget, CgroupPath, MetricsAddress, Timespan};

use document::{Document, Position};
use field_path::FieldPath;
use finding::Finding;
use yaml::Tags;

/// A valid configuration, and what the operator should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration, defaults filled in.
    pub config: Config,
    /// Things that are valid but will surprise, one line each in the shape of an error.
    pub warnings: Vec<String>,
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that `parse` sees that there is too much.
    let limit = yaml::MAX_BYTES as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&name, &error))?;
    parse_bytes(&bytes, &name)
}

/// Checks the content of a file; `source_name` stands for its name in messages.
pub fn parse_bytes(bytes: &[u8], source_name: &str) -> Result<Loaded, ConfigError> {
    match str::from_utf8(bytes) {
        Ok(text) => parse(text, source_name),
        Err(_) if bytes.len() > yaml::MAX_BYTES => Err(too_large(source_name)),
        Err(error) => Err(not_utf8(&bytes[..error.valid_up_to()], source_name)),
    }
}

/// Checks `text`; `source_name` stands for the file's name in messages.
pub fn parse(text: &str, source_name: &str) -> Result<Loaded, ConfigError> {
    if text.len() > yaml::MAX_BYTES {
        return Err(too_large(source_name));
    }
    let mut track = Track::new();
    let config = yaml::parse(text, Tags::Refuse, |deserializer| {
        Option::<Config>::deserialize(Deserializer::new(deserializer, &mut track))
    })
    .map_err(|error| {
        let (finding, position) = explain::explain(&error, FieldPath::from(&track.path()), text);
        finding.into_error(source_name, position)
    })?
    .unwrap_or_default();

    let document = Document::parse(text).map_err(|error| {
        let (finding, position) = explain::explain(&error, FieldPath::default(), text);
        finding.into_error(source_name, position)
    })?;
    validate::validate(&config).map_err(|mut finding| {
        if let Some(other) = &finding.other {
            let line = document.position(other).line;
            finding.problem = format!("{} (line {line})", finding.problem);
        }
        let position = document.position(&finding.path);
        finding.into_error(source_name, position)
    })?;
    let warnings = validate::warnings(&config)
        .into_iter()
        .map(|finding| {
            let position = document.position(&finding.path);
            finding.into_warning(source_name, position)
        })
        .collect();
    Ok(Loaded { config, warnings })
}

/// The JSON Schema of the file, for editors and other checkers.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

fn unreadable(file: &str, error: &io::Error) -> ConfigError {
    let (problem, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            "there is no such file".to_owned(),
            "check the path, or create the file",
        ),
        io::ErrorKind::PermissionDenied => (
            "no permission to read it".to_owned(),
            "run as root, or make it readable",
        ),
        io::ErrorKind::IsADirectory => (
            "is a directory".to_owned(),
            "give the path of the file itself",
        ),
        _ => (
            format!("cannot be read: {error}"),
            "check the path and the file system",
        ),
    };
    ConfigError::Unreadable {
        file: file.to_owned(),
        problem,
        remedy: remedy.to_owned(),
    }
}

fn too_large(file: &str) -> ConfigError {
    ConfigError::Unreadable {
        file: file.to_owned(),
        problem: format!("is larger than {} MiB", yaml::MAX_BYTES >> 20),
        remedy: "check that this is the configuration file".to_owned(),
    }
}

/// `valid` is what comes before the first byte that is no UTF-8.
fn not_utf8(valid: &[u8], file: &str) -> ConfigError {
    let position = Position::after(&String::from_utf8_lossy(valid));
    Finding::new(
        FieldPath::default(),
        "is not UTF-8 text",
        "save the file as UTF-8",
    )
    .into_error(file, position)
}
