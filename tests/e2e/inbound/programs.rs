//! Servers that nobody here wrote, and many connections.

use anyhow::ensure;
use mesh_tests::{program, scenario, wait_until};

use super::{BOUND, STEERING, accepted, config, pods};
use crate::peers::{CLIENT, CLIENT6, SERVER, SERVER6, at};

#[test]
fn nginx_is_told_its_clients_address_in_both_ways() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let proxied = "capture: {inbound: true, proxyProtocolPorts: [8081]}";
        let agent = node.agent(&node.config().pod_with(&server, &[proxied]))?;
        let scratch = server.scratch("nginx");
        std::fs::create_dir(&scratch)?;
        let conf = scratch.join("nginx.conf");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", scratch.display()))
            .concat();
        std::fs::write(
            &conf,
            format!(
                "daemon off; user root; worker_processes 2; pid {0}/pid; error_log stderr;\n\
                 events {{}}\nhttp {{ access_log off; {temporary}\n\
                 server {{ listen 8080 reuseport; listen [::]:8080 reuseport;\n\
                 location / {{ return 200 \"$remote_addr $server_addr:$server_port\"; }} }}\n\
                 server {{ listen 8081 proxy_protocol; listen [::]:8081 proxy_protocol;\n\
                 location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_server_addr\"; }} }} }}\n",
                scratch.display()
            ),
        )?;
        let _nginx = server
            .spawn(["nginx", "-e", "stderr", "-c", &conf.to_string_lossy()])?
            .listening(8080)?
            .listening(8081)?;
        for (host, own) in [(SERVER, CLIENT), (SERVER6, CLIENT6)] {
            for (port, expected) in [
                (8080, format!("{own} {host}:8080")),
                (8081, format!("{own} {host}")),
            ] {
                let url = format!("http://{}/", at(host, port));
                let page = client
                    .run(["curl", "-sSg", "--max-time", "10", &url])?
                    .success()?;
                ensure!(page == expected, "{page}, not {expected}");
            }
        }
        ensure!(accepted(&agent)? == 4);
        Ok(())
    });
}

#[test]
fn a_java_http_server_sees_its_clients_address() {
    scenario(|node| {
        let (client, server) = pods(node)?;
        let agent = node.agent(&config(node, &server, "bind", &[]))?;
        let source = program("JavaServer.java");
        let _java = server
            .spawn(["java", &source.to_string_lossy(), "8080"])?
            .listening(8080)?;
        for (host, own) in [(SERVER, CLIENT), (SERVER6, CLIENT6)] {
            let url = format!("http://{}/", at(host, 8080));
            let page = client
                .run(["curl", "-sSg", "--max-time", "10", &url])?
                .success()?;
            // Java writes IPv6 addresses out.
            let own = own.replace("::", ":0:0:0:0:0:0:");
            ensure!(page.trim() == own, "{page}, not {own}");
        }
        ensure!(accepted(&agent)? == 2);
        Ok(())
    });
}

#[test]
fn thousands_of_connections_arrive_whole_and_leave_nothing() {
    const CONNECTIONS: u64 = 5_000;
    for steering in STEERING {
        scenario(|node| {
            let (client, server) = pods(node)?;
            let agent = node.agent(&config(node, &server, steering, &[]))?;
            let _server = server
                .spawn_python("checksum_server.py", ["server", "7001"])?
                .listening(7001)?;
            let arguments = [
                "sequential",
                &CONNECTIONS.to_string(),
                "65536",
                &format!("server={}", at(SERVER, 7001)),
            ];
            let client = client.spawn_python("checksum_client.py", arguments)?;
            let outcome = client.finish(4 * BOUND)?.json()?;
            ensure!(
                outcome["failed"] == 0 && outcome["connections"] == CONNECTIONS,
                "{outcome}"
            );
            ensure!(accepted(&agent)? == CONNECTIONS);
            wait_until(BOUND, "the connections to be forgotten", || {
                Ok(agent.map_dump("inbound_peers")?.is_empty())
            })
        });
    }
}
