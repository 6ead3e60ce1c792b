//! What the types cannot say of destinations.

use std::collections::HashMap;

use super::{is_dns_label, policy, refused, used_twice};
use crate::config::field_path::FieldPath;
use crate::config::finding::Finding;
use crate::config::model::{Config, Destination, Endpoint};
use crate::config::policy::Policy;
use crate::config::yaml::quoted;

/// The first rule that they break.
pub(super) fn validate(destinations: &[Destination]) -> Result<(), Finding> {
    let mut names = HashMap::new();
    let mut hosts = HashMap::new();
    for (index, destination) in destinations.iter().enumerate() {
        let at = path(index);
        let name = at.field("name");
        if !is_dns_label(&destination.name) {
            let problem = format!("{} is not a DNS label", quoted(&destination.name));
            return Err(refused(name, problem));
        }
        if let Some(first) = names.insert(destination.name.as_str(), name.clone()) {
            let remedy = "give each destination a name of its own";
            return Err(used_twice(name, &destination.name, first, remedy));
        }
        if destination.port == Some(0) {
            return Err(refused(at.field("port"), "port 0 is not a port"));
        }
        endpoints(&at.field("endpoints"), destination)?;
        policy::validate(&at.field("policy"), &destination.policy)?;
        for (index, host) in destination.hosts.iter().enumerate() {
            let at = at.field("hosts").index(index);
            if !is_host(host) {
                let problem = format!("{} is not a host name", quoted(host));
                return Err(refused(at, problem));
            }
            if let Some(first) = hosts.insert(host.to_ascii_lowercase(), at.clone()) {
                return Err(used_twice(at, host, first, "name each host once"));
            }
        }
    }
    for (index, destination) in destinations.iter().enumerate() {
        let at = path(index).field("policy");
        fallback(&at, &destination.name, &destination.policy, destinations)?;
    }
    Ok(())
}

/// The destination that the policy at `at`, that of the destination `own`, falls back on.
pub(super) fn fallback(
    at: &FieldPath,
    own: &str,
    policy: &Policy,
    destinations: &[Destination],
) -> Result<(), Finding> {
    let fallback = policy.fallback.as_ref();
    let Some(name) = fallback.and_then(|it| it.destination.as_deref()) else {
        return Ok(());
    };
    let mut others = destinations.iter().filter(|it| it.name != own);
    let at = at.field("fallback").field("destination");
    match others.find(|it| it.name == name) {
        Some(other) if !other.endpoints.is_empty() => Ok(()),
        Some(_) => Err(Finding::new(
            at,
            format!("{} has no `endpoints` that could be asked", quoted(name)),
            "give it some",
        )),
        None => {
            let problem = format!("{} is no other destination of the file", quoted(name));
            Err(refused(at, problem))
        }
    }
}

fn endpoints(at: &FieldPath, destination: &Destination) -> Result<(), Finding> {
    let mut addresses = HashMap::new();
    for (index, endpoint) in destination.endpoints.iter().enumerate() {
        let address = at.index(index).field("address");
        if endpoint.address.port() == 0 {
            return Err(refused(address, "port 0 is not a port"));
        }
        if !Endpoint::WEIGHT.contains(&endpoint.weight) {
            let problem = format!("`{}` is out of range", endpoint.weight);
            return Err(refused(at.index(index).field("weight"), problem));
        }
        if let Some(first) = addresses.insert(endpoint.address, address.clone()) {
            let remedy = "list each server once, with a weight";
            return Err(used_twice(
                address,
                &endpoint.address.to_string(),
                first,
                remedy,
            ));
        }
    }
    Ok(())
}

/// What is valid but will surprise.
pub(super) fn warnings(config: &Config) -> Vec<Finding> {
    let mut warnings = Vec::new();
    let has_dns = config.pods.iter().any(|pod| pod.capture.dns);
    for (index, destination) in config.destinations.iter().enumerate() {
        if destination.hosts.is_empty() {
            continue;
        }
        if destination.addresses.is_empty() {
            warnings.push(Finding::new(
                path(index).field("hosts"),
                "without addresses these names are left to the pods' DNS servers",
                "add `addresses: [ADDRESS]`",
            ));
        } else if !has_dns && destination.port.is_none() && destination.endpoints.is_empty() {
            warnings.push(Finding::new(
                path(index).field("hosts"),
                "no pod's DNS is captured, so nobody is answered with these names",
                "set `capture: {dns: true}` for the pods that use them",
            ));
        }
    }
    warnings
}

pub(super) fn path(index: usize) -> FieldPath {
    FieldPath::default().field("destinations").index(index)
}

/// RFC 1123 names as they stand in a DNS query, without a dot at the end. `_` is common in practice.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let labels = name.strip_prefix("*.").unwrap_or(name);
    labels.len() <= 253 && labels.split('.').all(is_label)
}
