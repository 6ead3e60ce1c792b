//! What holds for every text and every configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::super::{
    AccessLogTarget, Agent, Capture, CgroupPath, Config, HardwareStamps, InboundSteering, Latency,
    MetricsAddress, OnAgentDown, Overload, Pod, PodSockets, Protocol, Proxy, Timespan, Tracing,
    parse,
};

fn path(longest: usize) -> impl Strategy<Value = PathBuf> {
    // Printable text of all kinds, so that quoting is put to the test as well.
    proptest::string::string_regex(&format!(
        "/[^\\p{{C}}\\p{{Z}}/.]([^\\p{{C}}/]{{0,{longest}}}x)?"
    ))
    .unwrap()
    .prop_map(PathBuf::from)
}

fn network() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0_u8..=128).prop_filter_map("IPv4 in IPv6", |(address, prefix)| {
        let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        let prefix = if address.is_ipv4() {
            prefix % 33
        } else {
            prefix
        };
        (!mapped).then(|| IpNet::new(address, prefix).unwrap())
    })
}

fn agent() -> impl Strategy<Value = Agent> {
    let address = (any::<IpAddr>(), 1_u16..).prop_map(SocketAddr::from);
    (
        prop_oneof![Just(CgroupPath::Auto), path(40).prop_map(CgroupPath::Path)],
        prop_oneof![
            Just(MetricsAddress::Off),
            address.prop_map(MetricsAddress::Address)
        ],
        path(20),
        path(40),
        0_u64..=600_000_000_000,
        Agent::MIN_CONNECTIONS..=Agent::MAX_CONNECTIONS,
    )
        .prop_map(
            |(cgroup, metrics, admin_socket, pin_path, drain_nanos, max_connections)| Agent {
                cgroup,
                metrics,
                admin_socket,
                pin_path,
                drain_timeout: Timespan::from(Duration::from_nanos(drain_nanos)),
                udp_idle_timeout: Timespan::from_secs(1 + drain_nanos % 86_400),
                max_connections,
                access_log: AccessLogTarget::Stdout,
                tracing: (drain_nanos % 3 == 0).then_some(Tracing {
                    sample: 0.25,
                    otlp: None,
                }),
                redis: (drain_nanos % 5 == 0)
                    .then(|| format!("redis://h:{}", drain_nanos % 60_000)),
                zone: (drain_nanos % 2 == 0).then(|| drain_nanos.to_string()),
            },
        )
}

fn pod() -> impl Strategy<Value = Pod> {
    let external = (1_u16.., path(40)).prop_map(|(port, cgroup)| Proxy::External { port, cgroup });
    (
        // Names that other types might claim (`null`, `1e5`, `0x1`) are names here.
        prop_oneof![
            "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
            "null|true|off|y|1e5|0x1|0o7|inf"
        ],
        path(40),
        (
            any::<[bool; 3]>(),
            prop::collection::vec(1_u16.., 1..=8),
            prop::collection::vec(1_u16.., 0..=8),
            prop_oneof![Just(InboundSteering::Bind), Just(InboundSteering::SkLookup)],
            prop_oneof![
                Just(Protocol::Tcp),
                Just(Protocol::Auto),
                Just(Protocol::Http2)
            ],
            prop::collection::vec(1_u16.., 0..4),
        ),
        [
            prop::collection::vec(1_u16.., 0..5),
            prop::collection::vec(1_u16.., 0..5),
        ],
        prop::collection::vec(network(), 0..5),
        prop_oneof![Just(OnAgentDown::Open), Just(OnAgentDown::Closed)],
        prop_oneof![Just(Proxy::Agent), external],
    )
        .prop_map(
            |(name, netns, capture, excluded_ports, exclude_cidrs, on_agent_down, proxy)| {
                let ([outbound, inbound, dns], dns_ports, udp_ports, steering, protocol, proxied) =
                    capture;
                let [exclude_ports, exclude_inbound_ports] = excluded_ports;
                Pod {
                    name,
                    netns,
                    capture: Capture {
                        outbound,
                        inbound,
                        inbound_steering: steering,
                        inbound_protocol: protocol,
                        proxy_protocol_ports: proxied,
                        dns,
                        dns_ports,
                        udp_ports,
                    },
                    exclude_ports,
                    exclude_inbound_ports,
                    exclude_cidrs,
                    on_agent_down,
                    proxy,
                    overload: inbound.then(Overload::default),
                }
            },
        )
}

fn config() -> impl Strategy<Value = Config> {
    (agent(), prop::collection::vec(pod(), 0..4)).prop_map(|(agent, mut pods)| {
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        pods.dedup_by(|a, b| a.name == b.name);
        pods.sort_by(|a, b| a.netns.cmp(&b.netns));
        pods.dedup_by(|a, b| a.netns == b.netns);
        let latency = Latency {
            sample: f64::from(agent.max_connections % 8) / 8.0,
            most_per_second: 1 + agent.max_connections % 1_000_000,
            hardware: [
                HardwareStamps::Auto,
                HardwareStamps::On,
                HardwareStamps::Off,
            ][agent.max_connections as usize % 3],
            pod_sockets: [PodSockets::Off, PodSockets::Rtt, PodSockets::Stamps]
                [agent.max_connections as usize % 3],
            server_timing: agent.max_connections.is_multiple_of(2),
        };
        Config {
            agent,
            pods,
            latency,
            ..Config::default()
        }
    })
}

/// Text made of the pieces of a configuration, so that it gets far before it fails.
fn nearly_yaml() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "agent",
        "pods",
        "name",
        "netns",
        "capture",
        "excludePorts",
        "excludeCidrs",
        "proxy",
        "external",
        "drainTimeout",
        "metrics",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "'",
        "\"",
        "|",
        ">",
        "&a ",
        "*a",
        "<<",
        "!x ",
        "!!str ",
        "? ",
        "#",
        "---",
        "\n---\n",
        "...",
        "%",
        "5s",
        "1",
        "-1",
        ".nan",
        "1e999",
        "~",
        "/run",
        "10.0.0.0/8",
        "\t",
        "\r\n",
        "\u{feff}",
        "\u{85}",
        "ä",
        "true",
        "0x",
        "@",
        "`",
        "\\",
        "\0",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Parses without panic; what comes out, or the refusal, is fit to be logged.
fn survives(text: &str) -> Result<(), TestCaseError> {
    match parse(text, "mesh.yaml") {
        Ok(loaded) => {
            for warning in loaded.warnings {
                prop_assert!(!warning.contains(char::is_control), "{warning}");
            }
        }
        Err(error) => {
            let line = error.to_string();
            prop_assert!(!line.contains(char::is_control), "{line:?}");
            prop_assert!(
                line.starts_with("mesh.yaml:") && line.contains("; "),
                "{line}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        survives(&text)?;
    }

    #[test]
    fn any_text_that_is_nearly_yaml_is_survived(text in nearly_yaml()) {
        survives(&text)?;
    }

    #[test]
    fn a_damaged_file_is_survived(config in config(), at in any::<prop::sample::Index>(), damage in any::<char>()) {
        let mut characters: Vec<char> =
            serde_saphyr::to_string(&config).unwrap().chars().collect();
        let at = at.index(characters.len());
        characters[at] = damage;
        survives(&characters.iter().collect::<String>())?;
        characters.truncate(at);
        survives(&characters.into_iter().collect::<String>())?;
    }

    #[test]
    fn what_is_written_is_read_back(config in config()) {
        let yaml = serde_saphyr::to_string(&config).unwrap();
        prop_assert_eq!(&parse(&yaml, "mesh.yaml").unwrap().config, &config, "{}", yaml);
        let json = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(&parse(&json, "mesh.json").unwrap().config, &config, "{}", json);
    }

    #[test]
    fn durations_are_read_back(nanos in any::<u64>()) {
        let span = Timespan::from(Duration::from_nanos(nanos));
        prop_assert_eq!(span.to_string().parse(), Ok(span));
    }
}
