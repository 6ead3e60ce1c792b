//! What each field accepts, in words that complete "write …".

use super::field_path::FieldPath;

/// Every field of the schema with what may stand there. `[]` is an item of a list.
pub(super) const ACCEPTED: &[(&str, &str)] = &[
    ("", "a mapping with `agent`, `pods` and `destinations`"),
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
        "agent.accessLog",
        "`off`, `stdout`, or the absolute path of a file",
    ),
    (
        "agent.tracing",
        "a mapping such as `tracing: {sample: 0.01, otlp: \"http://127.0.0.1:4318/v1/traces\"}`",
    ),
    ("agent.tracing.sample", "a number from 0 to 1"),
    (
        "agent.tracing.otlp",
        "a URL such as \"http://127.0.0.1:4318/v1/traces\" (without TLS)",
    ),
    (
        "agent.redis",
        "a URL such as \"redis://127.0.0.1:6379\" (without TLS)",
    ),
    ("agent.zone", "the name of a zone, such as `zone: a`"),
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
    ("latency", "a mapping such as `latency: {sample: 0.01}`"),
    ("latency.sample", "a number from 0 to 1"),
    ("latency.mostPerSecond", "a whole number from 1 to 1000000"),
    ("latency.hardware", "`auto`, `on` or `off`"),
    ("latency.podSockets", "`off`, `rtt` or `stamps`"),
    ("latency.serverTiming", "`true` or `false`"),
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
    (
        "destinations[].port",
        "the port from 1 to 65535 that apps connect to",
    ),
    (
        "destinations[].protocol",
        "`auto`, `http1`, `http2` or `tcp`",
    ),
    (
        "destinations[].endpoints",
        "a list of servers such as [{address: \"10.77.0.12:8080\"}]",
    ),
    ("destinations[].endpoints[]", "a mapping with `address`"),
    (
        "destinations[].endpoints[].address",
        "an IP address with a port in quotes, such as \"10.77.0.12:8080\" or \"[fd00::12]:8080\"",
    ),
    (
        "destinations[].endpoints[].weight",
        "a whole number from 1 to 1000000",
    ),
    (
        "destinations[].endpoints[].zone",
        "the name of a zone, such as `zone: a`",
    ),
    ("defaults", "a mapping such as `defaults: {policy: {}}`"),
    ("defaults.protocol", "`auto`, `http1`, `http2` or `tcp`"),
    (
        "policy",
        "a mapping such as `policy: {timeouts: {request: 5s}}`",
    ),
    (
        "policy.timeouts",
        "a mapping such as `timeouts: {request: 5s}`",
    ),
    (
        "policy.timeouts.connect",
        "a duration from 1ms to 24h such as `1s`",
    ),
    (
        "policy.timeouts.request",
        "a duration from 1ms to 24h such as `5s`",
    ),
    (
        "policy.timeouts.perTry",
        "a duration from 1ms to 24h such as `1s`",
    ),
    (
        "policy.timeouts.idle",
        "a duration from 1ms to 24h such as `5m`",
    ),
    (
        "policy.timeouts.header",
        "the name of a header such as x-request-timeout-ms",
    ),
    (
        "policy.timeouts.adaptive",
        "a mapping such as `adaptive: {target: 200ms, max: 1s}`",
    ),
    (
        "policy.timeouts.adaptive.target",
        "a duration from 1ms to 24h such as `200ms`",
    ),
    (
        "policy.timeouts.adaptive.max",
        "a duration from `target` to 24h such as `1s`",
    ),
    (
        "policy.timeouts.adaptive.window",
        "a whole number from 1 to 100000",
    ),
    (
        "policy.retries",
        "a mapping such as `retries: {attempts: 2}`",
    ),
    ("policy.retries.attempts", "a whole number from 0 to 10"),
    (
        "policy.retries.on",
        "a list of conditions such as [connect-failure, \"503\"]",
    ),
    (
        "policy.retries.on[]",
        "connect-failure, refused-stream, reset, per-try-timeout, 5xx, gateway-error, retriable-4xx, a status such as \"503\", header:NAME, or a gRPC status such as grpc-unavailable",
    ),
    ("policy.retries.allMethods", "`true` or `false`"),
    (
        "policy.retries.backoff",
        "a mapping such as `backoff: {base: 25ms, max: 250ms}`",
    ),
    (
        "policy.retries.backoff.base",
        "a duration from 1ms to 24h such as `25ms`",
    ),
    (
        "policy.retries.backoff.max",
        "a duration from 1ms to 24h such as `250ms`",
    ),
    (
        "policy.retries.budget",
        "a mapping such as `budget: {ratio: 0.2, floor: 3}`",
    ),
    ("policy.retries.budget.ratio", "a number from 0 to 1"),
    ("policy.retries.budget.floor", "a whole number from 0 on"),
    (
        "policy.retries.hedge",
        "a mapping such as `hedge: {after: p95, max: 1}`",
    ),
    (
        "policy.retries.hedge.after",
        "a duration from 1ms to 24h such as `50ms`, or a percentile from `p50` to `p99.99`",
    ),
    ("policy.retries.hedge.max", "a whole number from 1 to 3"),
    (
        "policy.retries.bufferBytes",
        "a whole number from 0 to 16777216",
    ),
    (
        "policy.balance",
        "a mapping such as `balance: {algorithm: round-robin}`",
    ),
    (
        "policy.balance.algorithm",
        "`round-robin`, `random`, `least-request`, `peak-ewma` or `consistent-hash`",
    ),
    (
        "policy.balance.key",
        "`source`, `header:NAME` or `cookie:NAME`",
    ),
    (
        "policy.balance.slowStart",
        "a duration from 1ms to 24h such as `30s`",
    ),
    (
        "policy.breaker",
        "a mapping such as `breaker: {ejection: {consecutive: 5}}`",
    ),
    (
        "policy.breaker.ejection",
        "a mapping such as `ejection: {consecutive: 5}`",
    ),
    (
        "policy.breaker.ejection.consecutive",
        "a whole number from 1 on",
    ),
    (
        "policy.breaker.ejection.failureRatio",
        "a number from 0.01 to 1",
    ),
    (
        "policy.breaker.ejection.minimumCalls",
        "a whole number from 1 on",
    ),
    (
        "policy.breaker.ejection.window",
        "a duration from 1ms to 24h such as `10s`",
    ),
    (
        "policy.breaker.ejection.base",
        "a duration from 1ms to 24h such as `30s`",
    ),
    (
        "policy.breaker.ejection.max",
        "a duration from 1ms to 24h such as `300s`",
    ),
    ("policy.breaker.ejection.atMost", "a number from 0 to 1"),
    (
        "policy.healthCheck",
        "a mapping such as `healthCheck: {type: http, path: /healthz}`",
    ),
    ("policy.healthCheck.type", "`tcp`, `http` or `grpc`"),
    ("policy.healthCheck.path", "a path such as /healthz"),
    (
        "policy.healthCheck.service",
        "the name of a gRPC service, of at most 100 bytes",
    ),
    (
        "policy.healthCheck.interval",
        "a duration from 1ms to 24h such as `2s`",
    ),
    (
        "policy.healthCheck.timeout",
        "a duration from 1ms to 24h such as `1s`",
    ),
    ("policy.healthCheck.phi", "a number from 1 to 16, such as 8"),
    ("policy.measure", "`total` or `server`"),
    ("policy.allowConnect", "`true` or `false`"),
    ("policy.healthCheck.rise", "a whole number from 1 on"),
    ("policy.healthCheck.fall", "a whole number from 1 on"),
    ("policy.mode", "`enforce` or `observe`"),
    ("policy.breaker.mode", "`enforce` or `observe`"),
    ("policy.breaker.consecutive", "a whole number from 1 on"),
    ("policy.breaker.failureRatio", "a number from 0.01 to 1"),
    (
        "policy.breaker.slowCall",
        "a mapping such as `slowCall: {threshold: 1s, ratio: 0.5}`",
    ),
    (
        "policy.breaker.slowCall.threshold",
        "a duration from 1ms to 24h such as `1s`",
    ),
    ("policy.breaker.slowCall.ratio", "a number from 0.01 to 1"),
    (
        "policy.breaker.window",
        "a duration such as `30s`, or a number of calls from 1 to 10000",
    ),
    ("policy.breaker.minimumCalls", "a whole number from 1 on"),
    (
        "policy.breaker.sustained",
        "a duration of at most 1h such as `5s`",
    ),
    (
        "policy.breaker.openFor",
        "a mapping such as `openFor: {base: 5s, max: 60s}`",
    ),
    (
        "policy.breaker.openFor.base",
        "a duration from 1ms to 24h such as `5s`",
    ),
    (
        "policy.breaker.openFor.max",
        "a duration from `base` to 24h such as `60s`",
    ),
    (
        "policy.breaker.halfOpen",
        "a mapping such as `halfOpen: {steps: [0.1, 0.5, 1.0]}`",
    ),
    (
        "policy.breaker.halfOpen.steps",
        "1 to 10 growing shares such as [0.1, 0.25, 0.5, 1.0]",
    ),
    (
        "policy.breaker.halfOpen.steps[]",
        "a share from 0.01 to 1, larger than the one before",
    ),
    (
        "policy.breaker.halfOpen.calls",
        "a whole number from 1 to 1000",
    ),
    (
        "policy.breaker.halfOpen.timeout",
        "a duration from 1ms to 24h such as `500ms`",
    ),
    (
        "policy.breaker.failures",
        "a list of conditions such as [5xx, reset, per-try-timeout]",
    ),
    (
        "policy.breaker.failures[]",
        "a condition such as 5xx, \"503\", reset, per-try-timeout, connect-failure or grpc-unavailable",
    ),
    (
        "policy.breaker.throttle",
        "a mapping such as `throttle: {k: 2.0, window: 2m}`",
    ),
    ("policy.breaker.throttle.mode", "`enforce` or `observe`"),
    (
        "policy.breaker.throttle.k",
        "a number from 1 to 100, such as 2.0",
    ),
    (
        "policy.breaker.throttle.window",
        "a duration from 1ms to 24h such as `2m`",
    ),
    (
        "policy.limits",
        "a mapping such as `limits: {requests: 100}`",
    ),
    ("policy.limits.mode", "`enforce` or `observe`"),
    ("policy.limits.connections", "a whole number from 1 on"),
    ("policy.limits.pending", "a whole number"),
    ("policy.limits.requests", "a whole number from 1 on"),
    (
        "policy.limits.adaptive",
        "a mapping such as `adaptive: {min: 4, max: 1000}`",
    ),
    ("policy.limits.adaptive.min", "a whole number from 1 on"),
    ("policy.limits.adaptive.max", "a whole number from `min` on"),
    (
        "policy.limits.rate",
        "a list of at most 8 rates such as [{limit: 100, per: 1s}]",
    ),
    (
        "policy.limits.rate[]",
        "a mapping such as `{limit: 100, per: 1s}`",
    ),
    (
        "policy.limits.rate[].algorithm",
        "fixed-window, sliding-window, sliding-log, leaky-bucket or token-bucket",
    ),
    (
        "policy.limits.rate[].limit",
        "a whole number from 1 to 1000000",
    ),
    (
        "policy.limits.rate[].per",
        "a duration from 1ms to 24h such as `1s`",
    ),
    ("policy.limits.rate[].burst", "a whole number up to 1000000"),
    (
        "policy.limits.rate[].by",
        "`destination`, `pod` or `header:NAME`",
    ),
    ("policy.limits.rate[].shared", "`true` or `false`"),
    (
        "policy.limits.rate[].follow",
        "a list of at most 8 rules such as [{failureRatio: 0.2, factor: 0.5}]",
    ),
    (
        "policy.limits.rate[].follow[]",
        "a mapping such as `{failureRatio: 0.2, factor: 0.5}`",
    ),
    (
        "policy.limits.rate[].follow[].failureRatio",
        "a number from 0 to 1",
    ),
    (
        "policy.limits.rate[].follow[].responseTime",
        "a duration from 1ms to 24h such as `500ms`",
    ),
    ("policy.limits.rate[].follow[].requests", "a whole number"),
    (
        "policy.limits.rate[].follow[].factor",
        "a number from 0.01 to 1",
    ),
    (
        "policy.fallback",
        "a mapping such as `fallback: {body: \"{}\"}` or `fallback: {destination: NAME}`",
    ),
    (
        "policy.fallback.destination",
        "the `name` of another destination of the file",
    ),
    ("policy.fallback.status", "a status from 200 to 599"),
    (
        "policy.fallback.headers",
        "a mapping such as `headers: {content-type: application/json}`",
    ),
    ("policy.fallback.body", "a text of at most 65536 bytes"),
    (
        "policy.critical",
        "a list such as [\"path:/pay\", \"header:x-vip\"]",
    ),
    ("policy.critical[]", "`path:/PREFIX` or `header:NAME`"),
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
        "pods[].capture.inboundProtocol",
        "`tcp`, `auto`, `http1` or `http2`",
    ),
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
    (
        "pods[].overload",
        "a mapping such as `overload: {queue: {maxWait: 100ms}}`",
    ),
    ("pods[].overload.mode", "`enforce` or `observe`"),
    ("pods[].overload.concurrency", "a whole number from 1 on"),
    (
        "pods[].overload.adaptive",
        "a mapping such as `adaptive: {min: 4, max: 1000}`",
    ),
    ("pods[].overload.adaptive.min", "a whole number from 1 on"),
    (
        "pods[].overload.adaptive.max",
        "a whole number from `min` on",
    ),
    (
        "pods[].overload.queue",
        "a mapping such as `queue: {maxWait: 100ms, minWait: 5ms}`",
    ),
    (
        "pods[].overload.queue.maxWait",
        "a duration from 1ms to 1h such as `100ms`",
    ),
    (
        "pods[].overload.queue.minWait",
        "a duration from 1ms to `maxWait` such as `5ms`",
    ),
    (
        "pods[].overload.queue.lifo",
        "`adaptive`, `never` or `always`",
    ),
    ("pods[].overload.queue.size", "a whole number up to 65536"),
    (
        "pods[].overload.admission",
        "a mapping such as `admission: {waitTarget: 20ms}`",
    ),
    (
        "pods[].overload.admission.waitTarget",
        "a duration from 1ms to 1h such as `20ms`",
    ),
    (
        "pods[].overload.admission.priorityHeader",
        "the name of a header",
    ),
    (
        "pods[].overload.admission.userHeader",
        "the name of a header",
    ),
    (
        "pods[].overload.critical",
        "a list such as [\"path:/healthz\", \"header:x-vip\"]",
    ),
    (
        "pods[].overload.critical[]",
        "`path:/PREFIX` or `header:NAME`",
    ),
];

/// What the field with this pattern accepts.
pub(super) fn accepted(pattern: &str) -> Option<&'static str> {
    let pattern = one_of_many(pattern);
    ACCEPTED
        .iter()
        .find(|(known, _)| *known == pattern)
        .map(|(_, text)| *text)
}

/// A policy has the same fields wherever it stands; they are listed once, below `policy`.
pub(super) fn one_of_many(pattern: &str) -> &str {
    let homes = ["destinations[].policy", "defaults.policy"];
    let home = homes.iter().find(|home| pattern.starts_with(**home));
    home.map_or(pattern, |home| &pattern[home.len() - "policy".len()..])
}

/// What to do about a field called `name` that `parent` does not have; `fields` are those it has.
pub(super) fn instead_of(name: &str, parent: &FieldPath, fields: &[&str]) -> String {
    // One letter amiss, like a plural, is likelier than the wrong place.
    let near = nearest(name, fields);
    if let Some(field) = near.filter(|field| strsim::damerau_levenshtein(name, field) == 1) {
        return format!("did you mean `{field}`?");
    }
    match home_of(name, one_of_many(&parent.pattern())) {
        Some("") => return "it belongs at the top level, check the indentation".to_owned(),
        Some(home) => return format!("it belongs under `{home}`, check the indentation"),
        None => {}
    }
    match near {
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
