//! What a server says before its answer, and what it is asked before it gets a body.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::ensure;
use mesh_tests::scenario;
use serde_json::{Value, json};

use super::{BOUND, PORT, WEB, Web};
use crate::peers::{OTHER, SERVER, at};

#[test]
fn early_hints_arrive_in_their_place() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{}")?;
        let ask = "GET /hints HTTP/1.1\\r\\nHost: a\\r\\n";
        let (one, last) = (
            format!("{ask}\\r\\n"),
            format!("{ask}Connection: close\\r\\n\\r\\n"),
        );
        // One after the other, and all at once.
        for wait in ["0.2", "0"] {
            let heard = web.raw(&["--wait", wait, &one, &one, &last])?;
            let statuses: Vec<&str> = heard
                .lines()
                .filter_map(|line| line.split_once("HTTP/1.1 ")?.1.split(' ').next())
                .collect();
            ensure!(
                statuses == ["103", "200", "103", "200", "103", "200"],
                "{heard}"
            );
            let links = heard.to_lowercase().matches("link: </a>").count();
            ensure!(links == 3, "{heard}");
        }
        // A client of HTTP/1.0 does not know them (RFC 9110, 15.2).
        let heard = web.raw(&["GET /hints HTTP/1.0\\r\\n\\r\\n"])?;
        ensure!(
            heard.contains(" 200 ") && !heard.contains(" 103 "),
            "{heard}"
        );
        Ok(())
    });
}

#[test]
fn what_http2_servers_say_first_arrives_first() {
    const PORT: &str = "7011";
    scenario(|node| {
        let web = Web::new(node)?;
        let program = mesh_tests::program("h2_interim.js");
        let argv = |role, address, port| {
            let program = program.display().to_string();
            ["node".to_owned(), program, role, address, port]
        };
        let served = argv("server".into(), SERVER.into(), PORT.into());
        let mut server = web.server.spawn(served)?;
        server.wait_stdout("ready", BOUND)?;
        for policy in ["{}", "{retries: {attempts: 2}}"] {
            let address = format!("{SERVER}:{PORT}");
            let agent = node.agent(&web.config(node, &[&address], policy))?;
            let asked = argv("client".into(), WEB.into(), "80".into());
            let seen: Value = web.client.run(asked)?.json()?;
            // Its answer comes only after the client has told that it heard the hints.
            let link = "</style.css>; rel=preload; as=style";
            let expected = json!({"seen": [[103, link], [200, null]], "body": "late"});
            ensure!(seen["hints"] == expected, "{seen}");
            // No more than a head may have, and the answer nevertheless.
            let heard = seen["flood"]["heard"].as_u64();
            ensure!((100..2_000).contains(&heard.unwrap_or(0)), "{seen}");
            ensure!(seen["flood"]["last"] == json!([200, null]), "{seen}");
            ensure!(seen["flood"]["body"] == "after all", "{seen}");
            let expected = json!({"seen": [[100, null], [200, null]], "body": "6 bytes"});
            ensure!(seen["wanted"] == expected, "{seen}");
            let expected = json!({"seen": [[417, null]], "body": ""});
            ensure!(seen["refused"] == expected, "{seen}");
            let answered = &agent.json("destinations")?[0]["answered"];
            ensure!(answered["2xx"].as_u64() >= Some(4), "{answered}");
        }
        Ok(())
    });
}

#[test]
fn a_server_is_asked_before_it_gets_a_body() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{}")?;
        let ask = |path: &str| {
            format!(
                "POST {path} HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\
                 Expect: 100-continue\\r\\nContent-Length: 4\\r\\n\\r\\n"
            )
        };
        for policy in ["{}", "{retries: {}}"] {
            let config = web.config(node, &[&at(SERVER, PORT)], policy);
            agent.rewrite_config(&config.to_yaml())?;
            // One that wants it.
            let heard = web.raw(&["--wait", "0.2", &ask("/sum"), "body"])?;
            let is_good = heard.starts_with("HTTP/1.1 100") && heard.contains("\r\n\r\n4 ");
            ensure!(is_good, "{heard}");
            // One that does not. It ends the connection, and so does the agent.
            let heard = web.raw(&[&ask("/refuse")])?;
            ensure!(heard.starts_with("HTTP/1.1 417"), "{heard}");
            // One that does not know the question.
            let begun = Instant::now();
            let heard = web.raw(&["--wait", "0.2", &ask("/sum?unasked=1"), "body"])?;
            ensure!(heard.contains("\r\n\r\n4 "), "{heard}");
            ensure!(begun.elapsed() > Duration::from_millis(900));
        }
        Ok(())
    });
}

#[test]
fn connect_goes_to_a_proxy_where_it_is_allowed() {
    scenario(|node| {
        let web = Web::new(node)?;
        let file = node.dir().join("tinyproxy.conf");
        fs::write(
            &file,
            format!("Port 7009\nListen {SERVER}\nMaxClients 20\nAllow 0.0.0.0/0\n"),
        )?;
        let file = file.display().to_string();
        let _proxy = web.server.spawn(["tinyproxy", "-d", "-c", &file])?;
        let url = format!("http://{}/ok", at(OTHER, PORT));
        let ask = |proxy: &str| {
            let tunnel = ["curl", "-sS", "--max-time", "5", "--proxytunnel", "--proxy"];
            web.client.run(tunnel.into_iter().chain([proxy, &url]))
        };
        let direct = format!("http://{}", at(SERVER, 7009));
        mesh_tests::wait_until(BOUND, "the proxy to listen", || {
            Ok(ask(&direct)?.success().is_ok())
        })?;
        let through = format!("http://{WEB}:80");
        let agent = node.agent(&web.config(node, &[&at(SERVER, 7009)], "{}"))?;
        ensure!(ask(&through)?.success().is_err());
        let config = web.config(node, &[&at(SERVER, 7009)], "{allowConnect: true}");
        agent.rewrite_config(&config.to_yaml())?;
        mesh_tests::wait_until(BOUND, "the new policy", || {
            Ok(ask(&through)?.success().is_ok_and(|name| name == "other"))
        })
    });
}
