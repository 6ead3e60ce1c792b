//! What each field accepts, in words that complete "write …".

use super::field_path::FieldPath;

/// Every field of the schema with what may stand there. `[]` is an item of a list.
pub(super) const ACCEPTED: &[(&str, &str)] = &[
    ("", "a mapping with `agent` and `pods`"),
    ("agent", "a mapping such as `agent: {drainTimeout: 5s}`"),
    (
        "agent.cgroup",
        "`auto` or the absolute path of a cgroup v2 directory",
    ),
    (
        "agent.metrics",
        "an IP address with a port such as 127.0.0.1:15020 (IPv6 in quotes: \"[::1]:15020\"), or `off`",
    ),
    (
        "agent.adminSocket",
        "an absolute path of at most 107 bytes, such as /run/mesh-agent/admin.sock",
    ),
    (
        "agent.pinPath",
        "the absolute path of a directory on a bpffs, such as /sys/fs/bpf/mesh",
    ),
    (
        "agent.udpIdleTimeout",
        "a duration from 1s to 24h such as `60s`",
    ),
    (
        "agent.drainTimeout",
        "whole numbers with units, such as 250ms, 5s or 1m30s (at most 10m)",
    ),
    (
        "agent.maxConnections",
        "a whole number from 1024 to 4194304",
    ),
    (
        "destinations",
        "a list of destinations, each starting with `- name: NAME`",
    ),
    ("destinations[]", "a mapping with `name`"),
    (
        "destinations[].name",
        "1 to 63 characters of a-z, 0-9 and `-`, with a letter or digit first and last",
    ),
    (
        "destinations[].hosts",
        "a list of host names such as [reviews.demo]",
    ),
    (
        "destinations[].hosts[]",
        "a host name such as reviews.demo or *.reviews.demo",
    ),
    (
        "destinations[].addresses",
        "a list of addresses such as [10.96.0.10]",
    ),
    (
        "destinations[].addresses[]",
        "an address such as 10.96.0.10 or fd00::10",
    ),
    ("pods", "a list of pods, each starting with `- name: NAME`"),
    ("pods[]", "a mapping with `name` and `netns`"),
    (
        "pods[].name",
        "1 to 63 characters of a-z, 0-9 and `-`, with a letter or digit first and last",
    ),
    (
        "pods[].netns",
        "the absolute path of the pod's network namespace, such as /run/netns/client",
    ),
    (
        "pods[].capture",
        "a mapping such as `capture: {outbound: true}`",
    ),
    ("pods[].capture.outbound", "`true` or `false`"),
    ("pods[].capture.inbound", "`true` or `false`"),
    ("pods[].capture.inboundSteering", "`bind` or `skLookup`"),
    (
        "pods[].capture.proxyProtocolPorts",
        "a list of ports such as [8080]",
    ),
    (
        "pods[].capture.proxyProtocolPorts[]",
        "a port from 1 to 65535",
    ),
    ("pods[].capture.dns", "`true` or `false`"),
    (
        "pods[].capture.dnsPorts",
        "a list of 1 to 8 ports such as [53, 5353]",
    ),
    ("pods[].capture.dnsPorts[]", "a port from 1 to 65535"),
    (
        "pods[].capture.udpPorts",
        "a list of at most 8 ports such as [514]",
    ),
    ("pods[].capture.udpPorts[]", "a port from 1 to 65535"),
    ("pods[].excludePorts", "a list of ports such as [22, 5432]"),
    ("pods[].excludePorts[]", "a port from 1 to 65535"),
    (
        "pods[].excludeInboundPorts",
        "a list of ports such as [22, 9100]",
    ),
    ("pods[].excludeInboundPorts[]", "a port from 1 to 65535"),
    (
        "pods[].excludeCidrs",
        "a list of networks such as [169.254.0.0/16]",
    ),
    (
        "pods[].excludeCidrs[]",
        "a network such as 169.254.0.0/16 or fd00::/8 (a single address is 10.0.0.1/32)",
    ),
    ("pods[].onAgentDown", "`open` or `closed`"),
    (
        "pods[].proxy",
        "`agent` or `{external: {port: PORT, cgroup: PATH}}`",
    ),
    (
        "pods[].proxy.agent",
        "`proxy: agent`, without anything below it",
    ),
    (
        "pods[].proxy.external",
        "`{external: {port: PORT, cgroup: PATH}}`",
    ),
    (
        "pods[].proxy.external.port",
        "the port from 1 to 65535 the proxy listens on",
    ),
    (
        "pods[].proxy.external.cgroup",
        "the absolute path of the cgroup v2 directory the proxy runs in",
    ),
];

/// What the field with this pattern accepts.
pub(super) fn accepted(pattern: &str) -> Option<&'static str> {
    ACCEPTED
        .iter()
        .find(|(known, _)| *known == pattern)
        .map(|(_, text)| *text)
}

/// What to do about a field called `name` that `parent` does not have; `fields` are those it has.
pub(super) fn instead_of(name: &str, parent: &FieldPath, fields: &[&str]) -> String {
    match home_of(name, &parent.pattern()) {
        Some("") => return "it belongs at the top level, check the indentation".to_owned(),
        Some(home) => return format!("it belongs under `{home}`, check the indentation"),
        None => {}
    }
    match nearest(name, fields) {
        Some(field) => format!("did you mean `{field}`?"),
        None => format!("{parent} has {}", listed(fields)),
    }
}

/// The pattern of the one that has a field called exactly `name`; one below `parent` for choice.
fn home_of(name: &str, parent: &str) -> Option<&'static str> {
    let homes = ACCEPTED.iter().filter(|(pattern, _)| !pattern.is_empty());
    homes
        .map(|(pattern, _)| pattern.rsplit_once('.').unwrap_or(("", pattern)))
        .filter_map(|(home, field)| (field == name).then_some(home))
        .min_by_key(|home| !home.starts_with(parent))
}

/// The candidate that `word` is most likely a slip of the pen for.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let word = plain(word);
    candidates
        .iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word, &plain(candidate)),
                *candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The names in backquotes, with commas.
pub(super) fn listed(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
