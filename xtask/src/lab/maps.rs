//! Reads the pinned maps with bpftool: what the kernel holds, not what the agent says.

use crate::workspace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

/// An entry of `origin_dst_map`.
#[derive(Debug)]
pub struct Connection {
    /// Address and port of the app's end.
    pub client: String,
    /// The loopback address and port it really talks to.
    pub proxy: String,
    /// Address and port it asked for.
    pub destination: String,
    /// The process that asked.
    pub process: u64,
}

/// All counters by name, each the sum over all processors.
pub fn counters(pins: &Path) -> Result<Vec<(&'static str, u64)>> {
    let dump = dump(&pins.join("counters"))?;
    let value = |index: usize| -> Result<u64> {
        let entry = dump
            .iter()
            .find(|entry| entry["formatted"]["key"].as_u64() == Some(index as u64))
            .with_context(|| format!("no counter {index} in the map"))?;
        let per_processor = entry["formatted"]["values"]
            .as_array()
            .context("the counters map is not per processor")?;
        Ok(per_processor
            .iter()
            .filter_map(|value| value["value"].as_u64())
            .sum())
    };
    mesh_common::COUNTERS
        .iter()
        .map(|(counter, name, _)| Ok((*name, value(*counter as usize)?)))
        .collect()
}

/// The redirected connections that are open now.
pub fn open_connections(pins: &Path) -> Result<Vec<Connection>> {
    dump(&pins.join("origin_dst_map"))?
        .iter()
        .map(connection)
        .collect()
}

fn connection(entry: &Value) -> Result<Connection> {
    let (key, value) = (&entry["formatted"]["key"], &entry["formatted"]["value"]);
    Ok(Connection {
        client: end(&key["client_address"], &key["client_port"])?,
        proxy: end(&key["proxy_address"], &key["proxy_port"])?,
        destination: end(&value["address"], &value["port"])?,
        process: value["process"]
            .as_u64()
            .context("an entry has no process")?,
    })
}

fn end(address: &Value, port: &Value) -> Result<String> {
    let octets: Vec<u8> = address
        .as_array()
        .context("an address is not a list of octets")?
        .iter()
        .filter_map(octet)
        .collect();
    let octets: [u8; 16] = octets
        .try_into()
        .ok()
        .context("an address is not 16 octets long")?;
    let address = IpAddr::V6(Ipv6Addr::from(octets)).to_canonical();
    let port = port.as_u64().context("an entry has no port")?;
    Ok(match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    })
}

/// bpftool prints octets as numbers or, from some versions on, as hexadecimal text.
fn octet(value: &Value) -> Option<u8> {
    match value {
        Value::Number(number) => u8::try_from(number.as_u64()?).ok(),
        Value::String(text) => u8::from_str_radix(text.trim_start_matches("0x"), 16).ok(),
        _ => None,
    }
}

fn dump(pin: &Path) -> Result<Vec<Value>> {
    let pin = pin.to_str().context("the pin's path is not UTF-8")?;
    match bpftool(&["map", "dump", "pinned", pin])? {
        Value::Array(entries) => Ok(entries),
        // An empty map of some versions.
        Value::Null => Ok(Vec::new()),
        other => bail!("bpftool printed no list of entries for {pin}: {other}"),
    }
}

/// The programs attached to a cgroup, each as its attach type.
pub fn attached_programs(cgroup: &Path) -> Result<Vec<String>> {
    let cgroup = cgroup.to_str().context("the cgroup's path is not UTF-8")?;
    let listed = bpftool(&["cgroup", "show", cgroup])?;
    let programs = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(programs
        .iter()
        .filter_map(|program| program["attach_type"].as_str().map(str::to_owned))
        .collect())
}

fn bpftool(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool")
        .arg("--json")
        .args(arguments)
        .env("PATH", workspace::search_path())
        .output()
        .context("cannot start bpftool (Debian package bpftool)")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stdout);
        bail!(
            "`bpftool {}` failed: {}",
            arguments.join(" "),
            message.trim()
        );
    }
    if output.stdout.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output.stdout).context("bpftool did not print JSON")
}
