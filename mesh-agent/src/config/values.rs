//! Values with a spelling of their own in the file: time spans, `auto` or a path, `off` or an
//! address.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// A span of time, written as whole numbers with units: `250ms`, `5s`, `1m30s`.
///
/// Units are `ns`, `us`, `ms`, `s`, `m` and `h`; nothing is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timespan(Duration);

const NANOS_PER_UNIT: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Timespan {
    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A span of whole milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The span as the standard library has it.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Timespan {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Timespan> for Duration {
    fn from(span: Timespan) -> Self {
        span.0
    }
}

impl From<Timespan> for String {
    fn from(span: Timespan) -> Self {
        span.to_string()
    }
}

impl TryFrom<String> for Timespan {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Timespan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The library also knows months, years and blanks between parts; the schema does not.
        let unit = |part: &str| NANOS_PER_UNIT.iter().any(|(unit, _)| *unit == part);
        let mut units = text
            .split(|c: char| c.is_ascii_digit())
            .filter(|part| !part.is_empty());
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("`{text}` has no unit"));
        }
        if !units.all(unit) {
            return Err(format!("`{text}` is not a duration"));
        }
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("`{text}` is not a duration"))
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, nanos) in NANOS_PER_UNIT {
            let nanos = u128::from(nanos);
            if rest >= nanos {
                write!(f, "{}{unit}", rest / nanos)?;
                rest %= nanos;
            }
        }
        Ok(())
    }
}

impl JsonSchema for Timespan {
    fn schema_name() -> Cow<'static, str> {
        "Timespan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Whole numbers with units, such as 250ms, 5s or 1m30s.",
            "pattern": "^([0-9]+(ns|us|ms|s|m|h))+$",
            "examples": ["250ms", "5s", "1m30s"],
        })
    }
}

/// A cgroup v2 directory, or the agent's own choice of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum CgroupPath {
    /// The cgroup v2 root, found by the agent.
    #[default]
    Auto,
    /// This directory.
    Path(PathBuf),
}

impl From<String> for CgroupPath {
    fn from(text: String) -> Self {
        if text == "auto" {
            Self::Auto
        } else {
            Self::Path(text.into())
        }
    }
}

impl From<CgroupPath> for String {
    fn from(cgroup: CgroupPath) -> Self {
        cgroup.to_string()
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl JsonSchema for CgroupPath {
    fn schema_name() -> Cow<'static, str> {
        "CgroupPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`auto`, or the absolute path of a cgroup v2 directory.",
            "pattern": "^(auto|/.*)$",
            "examples": ["auto", "/sys/fs/cgroup/kubepods.slice"],
        })
    }
}

/// Where the access log goes, if anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AccessLogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To the end of this file.
    Path(PathBuf),
}

impl From<String> for AccessLogTarget {
    fn from(text: String) -> Self {
        match &*text {
            "off" => Self::Off,
            "stdout" => Self::Stdout,
            _ => Self::Path(text.into()),
        }
    }
}

impl From<AccessLogTarget> for String {
    fn from(target: AccessLogTarget) -> Self {
        match target {
            AccessLogTarget::Off => "off".to_owned(),
            AccessLogTarget::Stdout => "stdout".to_owned(),
            AccessLogTarget::Path(path) => path.display().to_string(),
        }
    }
}

impl JsonSchema for AccessLogTarget {
    fn schema_name() -> Cow<'static, str> {
        "AccessLogTarget".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`off`, `stdout`, or the absolute path of a file.",
            "pattern": "^(off|stdout|/.*)$",
            "examples": ["off", "stdout", "/var/log/mesh-agent/access.log"],
        })
    }
}

/// Where metrics and health are served, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MetricsAddress {
    /// Nowhere.
    Off,
    /// On this address, in the network namespace of the agent.
    Address(SocketAddr),
}

impl MetricsAddress {
    /// The address to listen on, if any.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl Default for MetricsAddress {
    fn default() -> Self {
        Self::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 15020)))
    }
}

impl From<MetricsAddress> for String {
    fn from(metrics: MetricsAddress) -> Self {
        metrics.to_string()
    }
}

impl TryFrom<String> for MetricsAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse()
            .map(Self::Address)
            .map_err(|_| format!("`{text}` is not an address with a port"))
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl JsonSchema for MetricsAddress {
    fn schema_name() -> Cow<'static, str> {
        "MetricsAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`off`, or an IP address with a port.",
            "examples": ["127.0.0.1:15020", "[::1]:15020", "off"],
        })
    }
}

/// Reads a mapping or list whose content is left out (all of it commented out, say) as its default.
pub(super) fn default_if_null<'de, D, Value>(deserializer: D) -> Result<Value, D::Error>
where
    D: Deserializer<'de>,
    Value: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
