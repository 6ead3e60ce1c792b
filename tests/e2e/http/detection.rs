//! What is spoken is found out, whoever speaks first and however small the pieces.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_tests::{Agent, Node, Pod, Process, scenario, wait_until};

use super::{BOUND, WEB, Web};
use crate::peers::{OTHER, SERVER, at, behaviours};

#[test]
fn a_request_in_single_bytes_is_one() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{}")?;
        let bytes = [
            "G",
            "E",
            "T",
            " ",
            "/",
            "ok",
            " H",
            "TTP/1.1",
            "\\r\\nHost: a\\r",
            "\\n",
        ];
        let pieces = [
            &["--wait", "0.003"],
            &bytes[..],
            &["Connection: close\\r\\n\\r\\n"],
        ]
        .concat();
        let answer = web.raw(&pieces)?;
        ensure!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("server"),
            "{answer}"
        );
        // One that waits for longer than it is waited for.
        let late = [
            "--wait",
            "0.3",
            "GET /ok HT",
            "TP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n",
        ];
        let answer = web.raw(&late)?;
        ensure!(answer.ends_with("server"), "{answer}");
        Ok(())
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _identity = behaviours(&web.server, &["7001=identity"])?;
        let _agent = node.agent(&web.config(node, &[&at(SERVER, 7001)], "{}"))?;
        let greeting = format!(
            "import socket,time\nb=time.monotonic()\nc=socket.create_connection(('{WEB}',80))\n\
             c.settimeout(5)\nprint(c.recv(6).decode(), time.monotonic()-b)"
        );
        let text = web.client.run(["python3", "-c", &greeting])?.success()?;
        let (name, took) = text.trim().split_once(' ').unwrap_or_default();
        ensure!(name == "server", "{text}");
        let took: f64 = took.parse()?;
        ensure!(took < 0.08, "it took {took} s");
        Ok(())
    });
}

#[test]
fn an_http2_server_that_speaks_first_does_not_get_round_the_policy() {
    scenario(|node| {
        let web = Web::new(node)?;
        let mut grpc = web
            .server
            .spawn_python("grpc_server.py", [at(SERVER, 7004)])?;
        grpc.wait_stdout("ready", BOUND)?;
        let agent = node.agent(&web.config(node, &[&at(SERVER, 7004)], "{}"))?;
        // Preface and SETTINGS; then a call of nothing, in literals. Later than any server's SETTINGS.
        let field = |name: &str, value: &str| {
            format!(
                "\\0\\x{:02x}{name}\\x{:02x}{value}",
                name.len(),
                value.len()
            )
        };
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/Test/nothing"),
            (":authority", "a"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let length: usize = fields
            .iter()
            .map(|(name, value)| 3 + name.len() + value.len())
            .sum();
        let block: String = fields
            .iter()
            .map(|(name, value)| field(name, value))
            .collect();
        let preface = "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0";
        let call = format!("\\0\\0\\x{length:02x}\\1\\5\\0\\0\\0\\1{block}");
        let mut calling = web.client.spawn_python(
            "http_raw.py",
            [&*at(WEB, 80), "--wait", "0.3", "", preface, &call],
        )?;
        wait_until(BOUND, "the call to be answered", || {
            Ok(agent.json("destinations")?[0]["answered"]["2xx"] == 1)
        })?;
        calling.kill()
    });
}

#[test]
fn what_is_not_http_is_forwarded_as_it_is() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _echo = behaviours(&web.server, &["7002=echo"])?;
        let _agent = node.agent(&web.config(node, &[&at(SERVER, 7002)], "{}"))?;
        for said in [
            "GET key\\r\\n",
            "\\x16\\x03\\x01\\x00\\x05\\x01aaaa",
            "x",
            "PRI * HT",
        ] {
            let begun = Instant::now();
            let heard = web.raw(&["--end", said])?;
            let plain = said.replace("\\r\\n", "\r\n");
            ensure!(said.contains("\\x") || heard == plain, "{said}: {heard}");
            ensure!(!heard.is_empty(), "{said}");
            ensure!(begun.elapsed() < Duration::from_secs(2), "{said}");
        }
        Ok(())
    });
}

#[test]
fn a_client_that_connects_early_and_asks_late_is_answered_by_policy() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{timeouts: {request: 200ms}}")?;
        let script = format!(
            "import socket,time\nc=socket.create_connection(('{WEB}',80))\ntime.sleep(0.5)\n\
             c.sendall(b'GET /slow?ms=5000 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')\nprint(c.recv(99).decode())"
        );
        let text = web.client.run(["python3", "-c", &script])?.success()?;
        ensure!(text.starts_with("HTTP/1.1 504"), "{text}");
        Ok(())
    });
}

#[test]
fn a_destination_that_refuses_is_told_in_http_or_reset() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = node.agent(&web.config(node, &[&at(SERVER, 1)], "{}"))?;
        let (status, reason) = web.status(&[], "/ok")?;
        ensure!(
            (status, &*reason) == (503, "connect_failure"),
            "{status} {reason}"
        );
        let begun = Instant::now();
        let heard = web.raw(&["x"])?;
        ensure!(heard == "<reset>", "{heard}");
        ensure!(begun.elapsed() < BOUND / 4);
        Ok(())
    });
}

/// OpenSSL's server, with a certificate for `name`.
fn tls_server(node: &Node, pod: &Pod, address: &str, name: &str) -> Result<Process> {
    let file = |suffix: &str| {
        node.dir()
            .join(format!("{name}.{suffix}"))
            .display()
            .to_string()
    };
    let (key, certificate) = (file("key"), file("pem"));
    let subject = format!("/CN={name}");
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let make = ["openssl"].into_iter().chain(make.split(' '));
    let files = ["-keyout", &key, "-out", &certificate, "-subj", &subject];
    pod.run(make.chain(files))?.success()?;
    let serve = ["openssl", "s_server", "-www", "-accept", address];
    let files = ["-key", &key, "-cert", &certificate];
    let mut server = pod.spawn(serve.into_iter().chain(files))?;
    server.wait_stdout("ACCEPT", BOUND)?;
    Ok(server)
}

#[test]
fn tls_goes_by_the_name_that_the_client_gives() {
    const PORT: u16 = 8443;
    scenario(|node| {
        let web = Web::new(node)?;
        let pods = [("one", &web.server, SERVER), ("two", &web.other, OTHER)];
        let mut destinations = Vec::new();
        let mut servers = Vec::new();
        for (name, pod, address) in pods {
            servers.push(tls_server(node, pod, &at(address, PORT), name)?);
            destinations.push(format!(
                "{{name: {name}, hosts: [{name}.demo], addresses: [{WEB}], port: 443, \
                 endpoints: [{{address: '{}'}}]}}",
                at(address, PORT)
            ));
        }
        let destinations = format!("destinations: [{}]", destinations.join(", "));
        let agent: Agent = node.agent(&node.config().pod(&web.client).after(&destinations))?;
        let subject = |name: &[&str]| -> Result<String> {
            let to = at(WEB, 443);
            let connect = ["openssl", "s_client", "-connect", &to];
            let ended = web
                .client
                .run(connect.into_iter().chain(name.iter().copied()))?;
            let text = ended.success()?;
            let subject = text.lines().find_map(|line| line.strip_prefix("subject="));
            Ok(subject.unwrap_or_default().replace(' ', ""))
        };
        for name in ["two.demo", "one.demo", "TWO.demo"] {
            let expected = format!("CN={}", &name.to_lowercase()[..3]);
            let seen = subject(&["-servername", name])?;
            ensure!(seen == expected, "{name}: {seen}");
        }
        // Without a name, or with one that no destination has: by address.
        for name in [&["-noservername"][..], &["-servername", "three.demo"]] {
            let seen = subject(name)?;
            ensure!(seen == "CN=one", "{name:?}: {seen}");
        }
        let metrics = agent.metrics()?;
        for line in [
            r#"mesh_agent_detections_total{outcome="tls"} 5"#,
            "mesh_agent_detection_seconds_count 5",
            r#"mesh_agent_tls_connections_total{destination="two",server_name="two.demo"} 2"#,
            r#"mesh_agent_tls_connections_total{destination="one",server_name="three.demo"} 1"#,
        ] {
            ensure!(
                metrics.lines().any(|it| it == line),
                "{line} is not in {metrics}"
            );
        }
        Ok(())
    });
}
