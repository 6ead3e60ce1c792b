//! What is spoken is found out, whoever speaks first and however small the pieces.

use std::time::{Duration, Instant};

use anyhow::ensure;
use mesh_tests::scenario;

use super::{BOUND, WEB, Web};
use crate::peers::{SERVER, at, behaviours};

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
