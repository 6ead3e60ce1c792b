//! What is accepted, what it means, and what is warned of.

use std::path::PathBuf;
use std::time::Duration;

use super::super::accepted::{ACCEPTED, one_of_many};
use super::super::{
    AccessLogTarget, Adaptive, Agent, BackoffSpans, Balance, BalanceAlgorithm, Budget, Capture,
    CgroupPath, Config, Defaults, Destination, Endpoint, HardwareStamps, HealthCheck,
    HealthCheckKind, Hedge, InboundSteering, Latency, Measure, MetricsAddress, Mode, OnAgentDown,
    Pod, PodSockets, Policy, Protocol, Proxy, Retries, Timeouts, Timespan, Tracing,
    fields_needing_restart, parse, schema,
};
use super::{pod_with, protection};

fn config(text: &str) -> Config {
    let loaded = parse(text, "mesh.yaml").unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new(), "for {text:?}");
    loaded.config
}

#[test]
fn a_file_with_nothing_in_it_is_all_defaults() {
    for text in [
        "",
        "\n",
        "---\n",
        "# nothing\n",
        "~",
        "{}",
        "pods: []",
        "pods:",
        "agent:\npods:\n",
    ] {
        assert_eq!(config(text), Config::default(), "for {text:?}");
    }
    let agent = Agent::default();
    assert_eq!(agent.cgroup, CgroupPath::Auto);
    assert_eq!(String::from(agent.metrics), "127.0.0.1:15020");
    assert_eq!(
        agent.admin_socket,
        PathBuf::from("/run/mesh-agent/admin.sock")
    );
    assert_eq!(agent.pin_path, PathBuf::from("/sys/fs/bpf/mesh"));
    assert_eq!(agent.drain_timeout.get(), Duration::from_secs(5));
    assert_eq!(agent.max_connections, 262_144);
}

#[test]
fn a_pod_needs_only_a_name_and_a_netns() {
    let expected = Pod {
        name: "client".to_owned(),
        netns: "/run/netns/client".into(),
        capture: Capture {
            outbound: true,
            inbound: false,
            inbound_steering: InboundSteering::Bind,
            inbound_protocol: Protocol::Tcp,
            proxy_protocol_ports: Vec::new(),
            dns: false,
            dns_ports: vec![53],
            udp_ports: Vec::new(),
        },
        exclude_ports: Vec::new(),
        exclude_inbound_ports: Vec::new(),
        exclude_cidrs: Vec::new(),
        on_agent_down: OnAgentDown::Open,
        proxy: Proxy::Agent,
        overload: None,
    };
    let bare = "pods: [{name: client, netns: /run/netns/client}]";
    assert_eq!(config(bare).pods, std::slice::from_ref(&expected));
    let emptied = pod_with("capture:\n    excludePorts:\n    excludeCidrs:");
    assert_eq!(config(&emptied).pods, [expected]);
}

const EVERY_FIELD: &str = "\
agent:
  cgroup: /sys/fs/cgroup/mesh
  metrics: off
  adminSocket: /tmp/admin.sock
  pinPath: /sys/fs/bpf/other
  drainTimeout: 1m30s
  udpIdleTimeout: 1h
  accessLog: /var/log/access.log
  tracing: {sample: 0.5, otlp: 'http://collector:4318/v1/traces'}
  zone: a
  maxConnections: 1024
  redis: redis://cache:6379
pods:
  - name: client
    netns: /run/netns/client
    capture:
      outbound: true
      inbound: true
      inboundSteering: skLookup
      inboundProtocol: http1
      proxyProtocolPorts: [8080]
      dns: false
      dnsPorts: [53, 5353]
      udpPorts: [514]
    excludePorts: [22, 22, 65535]
    excludeInboundPorts: [9100]
    excludeCidrs: [169.254.0.0/16, 'fd00::/8', 169.254.0.0/16]
    onAgentDown: closed
    proxy: {external: {port: 15001, cgroup: /sys/fs/cgroup/proxy}}
    overload:
      mode: observe
      concurrency: 7
      adaptive: {min: 2, max: 9}
      queue: {maxWait: 90ms, minWait: 4ms, lifo: always, size: 11}
      admission: {waitTarget: 8ms, priorityHeader: x-rank, userHeader: x-who}
      critical: ['path:/pay']
destinations:
  - name: reviews
    hosts: [reviews.demo, '*.Reviews.demo', a_b.c]
    addresses: [10.96.0.10, 'fd00::10']
    port: 80
    protocol: http2
    endpoints: [{address: '10.77.0.12:8080', weight: 3, zone: b}, {address: '[fd00::12]:8080'}]
    policy:
      timeouts:
        connect: 1s
        request: 5s
        perTry: 1s
        idle: 1m
        header: x-left-ms
        adaptive: {target: 200ms, max: 1s, window: 50}
      retries:
        attempts: 3
        on: [5xx, 'header:x-again']
        allMethods: true
        backoff: {base: 10ms, max: 1s}
        budget: {ratio: 0.5, floor: 1}
        hedge: {after: p99.9, max: 2}
        bufferBytes: 1024
      balance: {algorithm: consistent-hash, key: 'header:x-user', slowStart: 3s}
      mode: observe
      measure: server
      critical: ['header:x-vip']
      fallback: {status: 203, headers: {x-kind: old}, body: sorry}
      limits:
        mode: enforce
        connections: 5
        pending: 6
        requests: 7
        adaptive: {min: 3, max: 8}
        rate:
          - algorithm: leaky-bucket
            limit: 10
            per: 2s
            burst: 4
            by: 'header:X-Tenant'
            shared: true
            follow:
              - {failureRatio: 0.5, factor: 0.1}
              - {responseTime: 2s, factor: 0.2}
              - {requests: 30, factor: 0.3}
      breaker:
        mode: enforce
        consecutive: 6
        failureRatio: 0.6
        slowCall: {threshold: 3s, ratio: 0.7}
        window: 200
        minimumCalls: 30
        sustained: 4s
        openFor: {base: 2s, max: 20s}
        halfOpen: {steps: [0.2, 1.0], calls: 8, timeout: 700ms}
        failures: ['500', grpc-internal]
        throttle: {mode: observe, k: 1.5, window: 1m}
        ejection:
          consecutive: 3
          failureRatio: 0.4
          minimumCalls: 9
          window: 5s
          base: 1s
          max: 1m
          atMost: 0.3
      healthCheck: {type: grpc, path: /up, service: a.B, interval: 9s, timeout: 8s, rise: 7, fall: 6, phi: 5}
      allowConnect: true
defaults: {protocol: http1, policy: {timeouts: {request: 9s}}}
latency:
  sample: 0.5
  mostPerSecond: 7
  hardware: on
  podSockets: stamps
  serverTiming: true
";

#[test]
fn every_field_is_read() {
    let expected = Config {
        agent: Agent {
            cgroup: CgroupPath::Path("/sys/fs/cgroup/mesh".into()),
            metrics: MetricsAddress::Off,
            admin_socket: "/tmp/admin.sock".into(),
            pin_path: "/sys/fs/bpf/other".into(),
            drain_timeout: Timespan::from_secs(90),
            udp_idle_timeout: Timespan::from_secs(3600),
            zone: Some("a".to_owned()),
            access_log: AccessLogTarget::Path("/var/log/access.log".into()),
            tracing: Some(Tracing {
                sample: 0.5,
                otlp: Some("http://collector:4318/v1/traces".to_owned()),
            }),
            max_connections: 1024,
            redis: Some("redis://cache:6379".to_owned()),
        },
        pods: vec![Pod {
            name: "client".to_owned(),
            netns: "/run/netns/client".into(),
            capture: Capture {
                inbound: true,
                inbound_steering: InboundSteering::SkLookup,
                inbound_protocol: Protocol::Http1,
                proxy_protocol_ports: vec![8080],
                dns_ports: vec![53, 5353],
                udp_ports: vec![514],
                ..Capture::default()
            },
            exclude_ports: vec![22, 22, 65535],
            exclude_inbound_ports: vec![9100],
            exclude_cidrs: ["169.254.0.0/16", "fd00::/8", "169.254.0.0/16"]
                .map(|cidr| cidr.parse().unwrap())
                .to_vec(),
            on_agent_down: OnAgentDown::Closed,
            proxy: Proxy::External {
                port: 15001,
                cgroup: "/sys/fs/cgroup/proxy".into(),
            },
            overload: Some(protection::every_field_of_overload()),
        }],
        destinations: vec![every_field_of_a_destination()],
        defaults: Some(Defaults {
            protocol: Protocol::Http1,
            policy: Policy {
                timeouts: Timeouts {
                    request: Some(Timespan::from_secs(9)),
                    ..Timeouts::default()
                },
                ..Policy::default()
            },
        }),
        latency: Latency {
            sample: 0.5,
            most_per_second: 7,
            hardware: HardwareStamps::On,
            pod_sockets: PodSockets::Stamps,
            server_timing: true,
        },
    };
    assert_eq!(parse(EVERY_FIELD, "mesh.yaml").unwrap().config, expected);
}

fn every_field_of_a_destination() -> Destination {
    Destination {
        name: "reviews".to_owned(),
        hosts: ["reviews.demo", "*.Reviews.demo", "a_b.c"]
            .map(str::to_owned)
            .to_vec(),
        addresses: vec!["10.96.0.10".parse().unwrap(), "fd00::10".parse().unwrap()],
        port: Some(80),
        protocol: Protocol::Http2,
        endpoints: [
            ("10.77.0.12:8080", 3, Some("b")),
            ("[fd00::12]:8080", 1, None),
        ]
        .map(|(address, weight, zone)| Endpoint {
            address: address.parse().unwrap(),
            weight,
            zone: zone.map(str::to_owned),
        })
        .to_vec(),
        policy: every_part_of_a_policy(),
    }
}

fn every_part_of_a_policy() -> Policy {
    Policy {
        timeouts: Timeouts {
            connect: Timespan::from_secs(1),
            request: Some(Timespan::from_secs(5)),
            per_try: Some(Timespan::from_secs(1)),
            idle: Timespan::from_secs(60),
            adaptive: Some(Adaptive {
                target: Timespan::from_millis(200),
                max: Timespan::from_secs(1),
                window: 50,
            }),
            header: "x-left-ms".to_owned(),
        },
        retries: Some(Retries {
            attempts: 3,
            on: vec!["5xx".to_owned(), "header:x-again".to_owned()],
            all_methods: true,
            backoff: BackoffSpans {
                base: Timespan::from_millis(10),
                max: Timespan::from_secs(1),
            },
            budget: Budget {
                ratio: 0.5,
                floor: 1,
            },
            hedge: Some(Hedge {
                after: "p99.9".to_owned(),
                max: 2,
            }),
            buffer_bytes: 1024,
        }),
        balance: Balance {
            algorithm: BalanceAlgorithm::ConsistentHash,
            key: Some("header:x-user".to_owned()),
            slow_start: Some(Timespan::from_secs(3)),
        },
        mode: Mode::Observe,
        measure: Measure::Server,
        breaker: protection::every_field_of_a_breaker(),
        limits: protection::every_field_of_limits(),
        fallback: Some(protection::every_field_of_a_fallback()),
        critical: vec!["header:x-vip".to_owned()],
        health_check: Some(HealthCheck {
            kind: HealthCheckKind::Grpc,
            path: "/up".to_owned(),
            service: "a.B".to_owned(),
            interval: Timespan::from_secs(9),
            timeout: Timespan::from_secs(8),
            rise: 7,
            fall: 6,
            phi: Some(5.0),
        }),
        allow_connect: true,
    }
}

#[test]
fn durations_have_units() {
    let cases = [
        ("0s", Duration::ZERO),
        ("250ms", Duration::from_millis(250)),
        ("1m30s", Duration::from_secs(90)),
        ("1s500ms", Duration::from_millis(1500)),
        ("10m", Duration::from_mins(10)),
        ("7us5ns", Duration::from_nanos(7005)),
    ];
    for (text, expected) in cases {
        let span: Timespan = text.parse().unwrap();
        assert_eq!(span.get(), expected, "for {text}");
        assert_eq!(span.to_string(), text);
    }
    for text in [
        "",
        "5",
        "s",
        "5 s",
        "5x",
        "1.5s",
        "-1s",
        "1month",
        "99999999999999999999h",
        "५s",
    ] {
        assert!(text.parse::<Timespan>().is_err(), "{text:?} was accepted");
    }
}

#[test]
fn a_list_may_be_shared_by_an_alias() {
    let text = "\
pods:
  - {name: a, netns: /a, excludePorts: &ports [22, 0x17]}
  - {name: b, netns: /b, excludePorts: *ports}
";
    assert_eq!(config(text).pods[1].exclude_ports, [22, 23]);
}

#[test]
fn what_will_surprise_is_warned_of() {
    let text = pod_with(
        "capture: {inbound: true, dns: true, outbound: false}\n    \
         excludeCidrs: [10.1.2.3/8]\n    \
         proxy: {external: {port: 1, cgroup: /a}}",
    );
    assert_eq!(
        parse(&text, "mesh.yaml").unwrap().warnings,
        [
            "mesh.yaml:4:24: pods[0].capture.inbound: inbound connections of a pod with a proxy of its \
             own are left alone; set it to false to silence this",
            "mesh.yaml:4:35: pods[0].capture.dns: a pod with a proxy of its own asks its DNS servers \
             itself; set it to false to silence this",
            "mesh.yaml:4:51: pods[0].capture.outbound: nothing of this pod is captured, and its \
             own proxy has to steer the traffic itself; set it to true, or remove the pod",
            "mesh.yaml:5:20: pods[0].excludeCidrs[0]: `10.1.2.3/8` has host bits and is taken as \
             10.0.0.0/8; write 10.0.0.0/8",
        ]
    );
}

#[test]
fn changes_of_the_agent_need_a_restart() {
    let running = Config::default();
    let mut new = running.clone();
    new.agent.zone = Some("a".to_owned());
    new.latency.sample = 1.0;
    assert_eq!(fields_needing_restart(&running, &new), Vec::<String>::new());
    new.agent.max_connections = 2048;
    new.agent.drain_timeout = Timespan::from_secs(1);
    new.latency.pod_sockets = PodSockets::Rtt;
    assert_eq!(
        fields_needing_restart(&running, &new),
        [
            "agent.drainTimeout",
            "agent.maxConnections",
            "latency.podSockets"
        ]
    );
}

#[test]
fn every_field_of_the_schema_says_what_it_accepts() {
    let schema = schema();
    let mut fields = Vec::new();
    collect_fields(&schema, &schema, "", &mut fields);
    assert!(fields.len() > 20, "the walk finds the fields: {fields:?}");
    for field in &fields {
        assert!(
            ACCEPTED
                .iter()
                .any(|(known, _)| *known == one_of_many(field)),
            "{field} is not in the table"
        );
    }
    // And the other way round: nothing in the table that the schema does not have.
    for (known, _) in ACCEPTED {
        let choice = *known == "pods[].proxy.agent";
        assert!(
            choice || fields.iter().any(|field| one_of_many(field) == *known),
            "{known} is not in the schema"
        );
    }
}

/// Collects the patterns of all fields below `node` of the schema `root`.
fn collect_fields(
    root: &serde_json::Value,
    node: &serde_json::Value,
    at: &str,
    fields: &mut Vec<String>,
) {
    if !fields.iter().any(|known| known == at) {
        fields.push(at.to_owned());
    }
    if let Some(pointer) = node["$ref"].as_str() {
        let target = root.pointer(pointer.trim_start_matches('#')).unwrap();
        collect_fields(root, target, at, fields);
    }
    for (name, below) in node["properties"].as_object().into_iter().flatten() {
        let below_at = if at.is_empty() {
            name.clone()
        } else {
            format!("{at}.{name}")
        };
        collect_fields(root, below, &below_at, fields);
    }
    if node["items"].is_object() {
        collect_fields(root, &node["items"], &format!("{at}[]"), fields);
    }
    let choices = [&node["oneOf"], &node["anyOf"]];
    for choice in choices
        .into_iter()
        .filter_map(serde_json::Value::as_array)
        .flatten()
    {
        collect_fields(root, choice, at, fields);
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let schema = schema();
    for definition in ["Agent", "Capture", "Pod"] {
        assert_eq!(
            schema["$defs"][definition]["additionalProperties"], false,
            "{definition}"
        );
    }
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(
        schema["$defs"]["Pod"]["required"],
        serde_json::json!(["name", "netns"])
    );
    let agent = &schema["$defs"]["Agent"]["properties"];
    assert_eq!(agent["maxConnections"]["minimum"], Agent::MIN_CONNECTIONS);
    assert_eq!(agent["maxConnections"]["maximum"], Agent::MAX_CONNECTIONS);
    assert_eq!(agent["adminSocket"]["maxLength"], Agent::MAX_SOCKET_PATH);
}
