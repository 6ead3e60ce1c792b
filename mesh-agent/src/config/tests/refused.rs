//! Every way to be refused as a configuration, with the exact line.

use super::super::{ConfigError, parse};
use super::{check, check_pod, refusal};

#[test]
fn unknown_missing_and_repeated_fields() {
    check(&[
        (
            "policies: []",
            "1:1: policies: unknown field; top level has `agent`, `pods`, `destinations`, `defaults`, `latency`",
        ),
        (
            "metrics: off",
            "1:1: metrics: unknown field; it belongs under `agent`, check the indentation",
        ),
        (
            "agent:\n  pods: []",
            "2:3: agent.pods: unknown field; it belongs at the top level, check the indentation",
        ),
        (
            "agent:\n  metrcis: off",
            "2:3: agent.metrcis: unknown field; did you mean `metrics`?",
        ),
        (
            "pods:\n  - name: a\n",
            "2:5: pods[0].netns: is missing; add the absolute path of the pod's network namespace, \
             such as /run/netns/client",
        ),
        (
            "agent:\n  metrics: off\n  metrics: off\n",
            "3:3: agent.metrics: is given twice; keep one of them",
        ),
    ]);
    check_pod(&[
        (
            "exclude_ports: [1]",
            "4:5: pods[0].exclude_ports: unknown field; did you mean `excludePorts`?",
        ),
        (
            "capture: {excludePorts: [1]}",
            "4:15: pods[0].capture.excludePorts: unknown field; it belongs under `pods[]`, check \
             the indentation",
        ),
        (
            "proxy: {external: {prt: 5, cgroup: /a}}",
            "4:24: pods[0].proxy.external.prt: unknown field; did you mean `port`?",
        ),
        (
            "proxy: {external: {port: 5}}",
            "4:24: pods[0].proxy.external.cgroup: is missing; add the absolute path of the cgroup \
             v2 directory the proxy runs in",
        ),
    ]);
}

#[test]
fn values_of_the_wrong_type() {
    check(&[
        (
            "- a",
            "1:1: top level: a list does not fit here; write a mapping with `agent`, `pods` and `destinations`",
        ),
        (
            "agent: 5",
            "1:8: agent: `5` does not fit here; write a mapping such as `agent: {drainTimeout: 5s}`",
        ),
        (
            "pods: {a: b}",
            "1:7: pods: a mapping does not fit here; write a list of pods, each starting with `- \
             name: NAME`",
        ),
        (
            "pods:\n  -\n",
            "2:4: pods[0]: has no value; write a mapping with `name` and `netns`",
        ),
        (
            "agent:\n  maxConnections: -1",
            "2:19: agent.maxConnections: `-1` does not fit here; write a whole number from 1024 to \
             4194304",
        ),
    ]);
    check_pod(&[
        (
            "capture: {outbound: maybe}",
            "4:25: pods[0].capture.outbound: `maybe` does not fit here; write `true` or `false`",
        ),
        (
            "capture: {outbound: yes}",
            "4:25: pods[0].capture.outbound: `yes` does not fit here; write `true` or `false`",
        ),
        (
            "excludePorts: 22",
            "4:19: pods[0].excludePorts: `22` does not fit here; write a list of ports such as \
             [22, 5432]",
        ),
        (
            "excludePorts: [22, ssh]",
            "4:24: pods[0].excludePorts[1]: `ssh` does not fit here; write a port from 1 to 65535",
        ),
        (
            "excludeCidrs: [10.0.0.1]",
            "4:20: pods[0].excludeCidrs[0]: `10.0.0.1` does not fit here; write a network such as \
             169.254.0.0/16 or fd00::/8 (a single address is 10.0.0.1/32)",
        ),
        (
            "onAgentDown: opne",
            "4:18: pods[0].onAgentDown: `opne` is unknown here; did you mean `open`?",
        ),
        (
            "onAgentDown:",
            "4:16: pods[0].onAgentDown: has no value; write `open` or `closed`",
        ),
        (
            "proxy: envoy",
            "4:12: pods[0].proxy: `envoy` is unknown here; write `agent` or `{external: {port: \
             PORT, cgroup: PATH}}`",
        ),
        (
            "proxy: external",
            "4:12: pods[0].proxy.external: `external` does not fit here; write `{external: {port: \
             PORT, cgroup: PATH}}`",
        ),
        (
            "proxy: {agent: {}}",
            "4:20: pods[0].proxy.agent: a mapping does not fit here; write `proxy: agent`, without \
             anything below it",
        ),
        (
            "proxy: {external: {port: 5, cgroup: /a}, agent: {}}",
            "4:46: pods[0].proxy: more than one choice is given; keep one of them",
        ),
    ]);
}

#[test]
fn durations() {
    let accepts = "write whole numbers with units, such as 250ms, 5s or 1m30s (at most 10m)";
    for (duration, problem) in [
        ("5", "`5` has no unit"),
        ("5 parsecs", "`5 parsecs` is not a duration"),
        ("-5s", "`-5s` is not a duration"),
        ("11m", "`11m` is too long"),
    ] {
        assert_eq!(
            refusal(&format!(
                "agent:\n  metrics: off\n  drainTimeout: {duration}\n"
            )),
            format!("mesh.yaml:3:17: agent.drainTimeout: {problem}; {accepts}")
        );
    }
}

#[test]
fn values_out_of_range() {
    let socket = format!("agent: {{adminSocket: /{}}}", "a".repeat(107));
    let longest = format!("agent: {{adminSocket: /{}}}", "a".repeat(106));
    assert!(parse(&longest, "mesh.yaml").is_ok());
    check(&[
        (
            "agent: {maxConnections: 1023}",
            "1:25: agent.maxConnections: `1023` is out of range; write a whole number from 1024 to \
             4194304",
        ),
        (
            "agent: {maxConnections: 4194305}",
            "1:25: agent.maxConnections: `4194305` is out of range; write a whole number from 1024 \
             to 4194304",
        ),
        (
            "agent: {metrics: '0.0.0.0:0'}",
            "1:18: agent.metrics: port 0 is not a port; write an IP address with a port such as \
             127.0.0.1:15020 (IPv6 in quotes: \"[::1]:15020\"), or `off`",
        ),
        (
            "agent: {metrics: localhost}",
            "1:18: agent.metrics: `localhost` is not an address with a port; write an IP address \
             with a port such as 127.0.0.1:15020 (IPv6 in quotes: \"[::1]:15020\"), or `off`",
        ),
        (
            &socket,
            "1:22: agent.adminSocket: the path has 108 bytes; write an absolute path of at most \
             107 bytes, such as /run/mesh-agent/admin.sock",
        ),
        (
            "agent: {adminSocket: /run/mesh/}",
            "1:22: agent.adminSocket: the path is a directory's; write an absolute path of at most \
             107 bytes, such as /run/mesh-agent/admin.sock",
        ),
        (
            "agent: {cgroup: kubepods}",
            "1:17: agent.cgroup: `kubepods` is not an absolute path; write `auto` or the absolute \
             path of a cgroup v2 directory",
        ),
        (
            "agent: {pinPath: ''}",
            "1:18: agent.pinPath: is empty; write the absolute path of a directory on a bpffs, \
             such as /sys/fs/bpf/mesh",
        ),
        (
            "agent: {pinPath: \"/\\0\"}",
            "1:18: agent.pinPath: `/\\u{0}` contains a NUL; write the absolute path of a directory \
             on a bpffs, such as /sys/fs/bpf/mesh",
        ),
    ]);
    check_pod(&[
        (
            "excludePorts: [22, 0]",
            "4:24: pods[0].excludePorts[1]: port 0 is not a port; write a port from 1 to 65535",
        ),
        (
            "excludePorts: [65536]",
            "4:20: pods[0].excludePorts[0]: `65536` does not fit here; write a port from 1 to 65535",
        ),
        (
            "capture: {dnsPorts: []}",
            "4:25: pods[0].capture.dnsPorts: is empty; write [53], or set `dns: false`",
        ),
        (
            "capture: {dnsPorts: [53, 0]}",
            "4:30: pods[0].capture.dnsPorts[1]: port 0 is not a port; write a port from 1 to 65535",
        ),
        (
            "capture: {dnsPorts: [1, 2, 3, 4, 5, 6, 7, 8, 9]}",
            "4:25: pods[0].capture.dnsPorts: 9 ports, of 8 at most; write a list of 1 to 8 ports \
             such as [53, 5353]",
        ),
        (
            "excludeCidrs: ['::ffff:10.1.0.0/104']",
            "4:20: pods[0].excludeCidrs[0]: `::ffff:10.1.0.0/104` is an IPv4 network in IPv6 \
             notation; write 10.0.0.0/8",
        ),
        (
            "proxy: {external: {port: 0, cgroup: /a}}",
            "4:30: pods[0].proxy.external.port: port 0 is not a port; write the port from 1 to \
             65535 the proxy listens on",
        ),
        (
            "proxy: {external: {port: 1, cgroup: a}}",
            "4:41: pods[0].proxy.external.cgroup: `a` is not an absolute path; write the absolute \
             path of the cgroup v2 directory the proxy runs in",
        ),
    ]);
}

#[test]
fn destinations() {
    check(&[
        (
            "destinations:\n  - name: a\n    host: [a.b]\n",
            "3:5: destinations[0].host: unknown field; did you mean `hosts`?",
        ),
        (
            "destinations:\n  - name: a\n    hosts: [a.b, 'a..b']\n",
            "3:18: destinations[0].hosts[1]: `a..b` is not a host name; write a host name such as \
             reviews.demo or *.reviews.demo",
        ),
        (
            "destinations:\n  - name: a\n    hosts: [a.b]\n  - name: b\n    hosts: [c, A.b]\n",
            "5:16: destinations[1].hosts[1]: `A.b` is already used by destinations[0].hosts[0] \
             (line 3); name each host once",
        ),
        (
            "destinations:\n  - name: a\n  - name: a\n",
            "3:11: destinations[1].name: `a` is already used by destinations[0].name (line 2); \
             give each destination a name of its own",
        ),
        (
            "destinations:\n  - name: a\n    addresses: [10.0.0.300]\n",
            "3:17: destinations[0].addresses[0]: `10.0.0.300` does not fit here; write an address \
             such as 10.96.0.10 or fd00::10",
        ),
        (
            "destinations:\n  - name: a\n    port: 0\n",
            "3:11: destinations[0].port: port 0 is not a port; write the port from 1 to 65535 that \
             apps connect to",
        ),
        (
            "destinations:\n  - name: a\n    endpoints: [{address: '10.0.0.1'}]\n",
            "3:27: destinations[0].endpoints[0].address: `'10.0.0.1'` does not fit here; write an IP \
             address with a port in quotes, such as \"10.77.0.12:8080\" or \"[fd00::12]:8080\"",
        ),
        (
            "destinations:\n  - name: a\n    endpoints: [{address: '10.0.0.1:1'}, {address: '10.0.0.1:1'}]\n",
            "3:52: destinations[0].endpoints[1].address: `10.0.0.1:1` is already used by \
             destinations[0].endpoints[0].address (line 3); list each server once, with a weight",
        ),
    ]);
}

#[test]
fn policies() {
    check(&[
        (
            "defaults: {policy: {timeouts: {request: 5}}}",
            "1:41: defaults.policy.timeouts.request: `5` has no unit; write a duration from 1ms to \
             24h such as `5s`",
        ),
        (
            "defaults: {policy: {timeouts: {request: 0s}}}",
            "1:41: defaults.policy.timeouts.request: `0s` is out of range; write a duration from 1ms \
             to 24h such as `5s`",
        ),
        (
            "defaults: {policy: {timeout: {request: 5s}}}",
            "1:21: defaults.policy.timeout: unknown field; did you mean `timeouts`?",
        ),
        (
            "defaults: {policy: {timeouts: {adaptive: {target: 2s, max: 1s}}}}",
            "1:60: defaults.policy.timeouts.adaptive.max: `1s` is less than `target`, 2s; write a \
             duration from `target` to 24h such as `1s`",
        ),
        (
            "defaults: {policy: {retries: {on: [503, 603]}}}",
            "1:41: defaults.policy.retries.on[1]: `603` is not a condition; write connect-failure, \
             refused-stream, reset, per-try-timeout, 5xx, gateway-error, retriable-4xx, a status \
             such as \"503\", header:NAME, or a gRPC status such as grpc-unavailable",
        ),
        (
            "defaults: {policy: {retries: {budget: {ratio: 1.5}}}}",
            "1:47: defaults.policy.retries.budget.ratio: `1.5` is out of range; write a number from 0 \
             to 1",
        ),
        (
            "defaults: {policy: {balance: {algorithm: consistent-hash}}}",
            "1:30: defaults.policy.balance: `consistent-hash` needs a `key` to go by; add `key: \
             source`, `key: header:NAME` or `key: cookie:NAME`",
        ),
    ]);
}

#[test]
fn names_of_pods() {
    let longest = "a".repeat(63);
    for name in ["a", "0", "a-b", &longest] {
        let text = format!("pods: [{{name: '{name}', netns: /a}}]");
        assert!(parse(&text, "mesh.yaml").is_ok(), "{name} was refused");
    }
    let too_long = "a".repeat(64);
    for name in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &too_long] {
        let text = format!("pods: [{{name: '{name}', netns: /a}}]");
        let shown = if name.len() > 60 {
            &format!("{}…", &name[..60])
        } else {
            name
        };
        assert_eq!(
            refusal(&text),
            format!(
                "mesh.yaml:1:15: pods[0].name: `{shown}` is not a DNS label; write 1 to 63 \
                 characters of a-z, 0-9 and `-`, with a letter or digit first and last"
            )
        );
    }
}

#[test]
fn the_same_pod_twice() {
    check(&[
        (
            "pods:\n  - {name: a, netns: /a}\n  - {name: b, netns: /b}\n  - {name: a, netns: /c}\n",
            "4:12: pods[2].name: `a` is already used by pods[0].name (line 2); give each pod a \
             name of its own",
        ),
        (
            "pods:\n  - {name: a, netns: /run/a}\n  - {name: b, netns: /run//x/.././a/}\n",
            "3:22: pods[1].netns: `/run//x/.././a/` is already used by pods[0].netns (line 2); \
             give each pod a netns of its own",
        ),
    ]);
}

#[test]
fn an_error_can_be_taken_apart() {
    let error = parse("pods:\n  - nam: a\n", "mesh.yaml").unwrap_err();
    assert_eq!(
        error,
        ConfigError::Invalid {
            file: "mesh.yaml".to_owned(),
            line: 2,
            column: 5,
            field: "pods[0].nam".to_owned(),
            problem: "unknown field".to_owned(),
            remedy: "did you mean `name`?".to_owned(),
        }
    );
}

#[test]
fn nothing_in_the_file_can_break_the_line() {
    let line = parse("? \"a\\nb\\u2028\\e[31m\"\n: 1\n", "me\nsh.yaml")
        .unwrap_err()
        .to_string();
    assert!(
        line.starts_with("me\\nsh.yaml:1:3: a\\nb\\u{2028}\\u{1b}[31m: unknown"),
        "{line}"
    );
}
