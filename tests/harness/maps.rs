//! The agent's pinned maps, read with bpftool: what the kernel holds, not what the agent believes.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The entries of a map as bpftool prints them with BTF: `{"key": …, "value": …}`.
pub type MapEntries = Vec<Value>;

/// Dumps the map pinned at `pin`.
pub fn dump(pin: &Path) -> Result<MapEntries> {
    let output = bpftool(&["-j", "map", "dump", "pinned", &pin.to_string_lossy()])?;
    let value: Value = serde_json::from_str(&output)
        .with_context(|| format!("bpftool printed no JSON: {output}"))?;
    let entries = value
        .as_array()
        .with_context(|| format!("bpftool dumped no array: {output}"))?;
    // With BTF the readable form is in "formatted" or is the entry itself, depending on the version.
    Ok(entries
        .iter()
        .map(|entry| entry.get("formatted").unwrap_or(entry).clone())
        .collect())
}

/// The original destination in an entry of `origin_dst_map`, as `ip:port`.
pub fn original_destination(entry: &Value) -> Result<String> {
    destination(&entry["value"]).with_context(|| format!("no destination in {entry}"))
}

fn destination(value: &Value) -> Option<String> {
    let octets: Option<Vec<u8>> = value["address"]
        .as_array()?
        .iter()
        .map(|octet| u8::try_from(octet.as_u64()?).ok())
        .collect();
    let octets: [u8; 16] = octets?.try_into().ok()?;
    let port = u16::try_from(value["port"].as_u64()?).ok()?;
    Some(SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port).to_string())
}

/// The sum over all CPUs of entry `index` of the per-CPU array pinned at `pin`.
pub fn per_cpu_sum(pin: &Path, index: u32) -> Result<u64> {
    let entries = dump(pin)?;
    let entry = entries
        .iter()
        .find(|entry| entry["key"] == index)
        .with_context(|| format!("{} has no entry {index}", pin.display()))?;
    let values = entry["values"]
        .as_array()
        .with_context(|| format!("no values in {entry}"))?;
    values
        .iter()
        .map(|value| {
            value["value"]
                .as_u64()
                .with_context(|| format!("no number in {value}"))
        })
        .sum()
}

/// Programs attached to `cgroup` and all below it; empty when nothing is attached.
pub fn attached(cgroup: &Path) -> Result<Vec<String>> {
    let output = bpftool(&["-j", "cgroup", "tree", &cgroup.to_string_lossy()])?;
    // Without any program bpftool prints nothing at all.
    if output.trim().is_empty() {
        return Ok(Vec::new());
    }
    let tree: Value = serde_json::from_str(&output)
        .with_context(|| format!("bpftool printed no JSON: {output}"))?;
    let cgroups = tree.as_array().context("bpftool printed no list")?;
    let programs = cgroups
        .iter()
        .filter_map(|cgroup| cgroup["programs"].as_array())
        .flatten();
    Ok(programs.map(Value::to_string).collect())
}

fn bpftool(args: &[&str]) -> Result<String> {
    let output = Command::new("bpftool")
        .args(args)
        .output()
        .context("cannot run bpftool; install it")?;
    ensure!(
        output.status.success(),
        "`bpftool {}` failed: {}{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
