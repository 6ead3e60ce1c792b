//! What comes out is what went in.

use anyhow::{Context as _, ensure};
use mesh_tests::scenario;
use serde_json::json;

use super::{BOUND, PORT, WEB, Web, asked};
use crate::peers::{SERVER, at, nginx};

#[test]
fn answers_and_requests_arrive_as_they_were() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{}")?;
        let direct = format!("http://{}", at(SERVER, PORT));
        let head = [
            "-H",
            "X-Own: 1",
            "-H",
            "X-Own: 2",
            "-H",
            "Te: trailers, gzip",
            "-A",
            "me",
        ];
        let through: Vec<String> = serde_json::from_str(&web.curl(&head, "/head?a=%2f&b")?)?;
        let url = format!("{direct}/head?a=%2f&b");
        let mut argv = vec!["curl", "-sS", "-H", "Host: 10.96.0.10"];
        argv.extend(head);
        argv.push(&url);
        let plain: Vec<String> = serde_json::from_str(&web.server.run(argv)?.success()?)?;
        let sorted = |lines: &[String]| {
            let mut lines: Vec<String> = lines[1..].to_vec();
            lines.sort_by_key(|line| line.to_lowercase());
            lines
        };
        let expected: Vec<String> = sorted(&plain)
            .into_iter()
            .map(|line| match line.to_lowercase() {
                lower if lower.starts_with("te:") => format!("{}: trailers", &line[..2]),
                _ => line,
            })
            .collect();
        ensure!(through[0] == plain[0], "{through:?} {plain:?}");
        ensure!(sorted(&through) == expected, "{through:?} {plain:?}");

        for (arguments, path) in [
            (&["-i"][..], "/ok"),
            (&["-i"], "/status?code=204"),
            (&["-i"], "/status?code=304"),
            (&["-i"], "/status?code=500"),
            (&["-I"], "/ok"),
            // But for the version, which is the agent's own.
            (&["-0"], "/ok"),
            (&["-i", "-X", "OPTIONS"], "/ok"),
            (&["-i", "-X", "PURGE"], "/ok"),
            (&["-i", "-d", ""], "/sum"),
            (&["-i", "-H", "Expect: 100-continue", "-d", "a"], "/sum"),
            (&["-i", "--raw", "-H", "Te: trailers"], "/trailers"),
        ] {
            let url = format!("{direct}{path}");
            let argv = [&["curl", "-sS"][..], arguments, &[&url]].concat();
            let plain = web.server.run(argv)?.success()?;
            let through = web.curl(arguments, path)?;
            let sorted = |text: &str| {
                let mut lines: Vec<String> = text.lines().map(str::to_lowercase).collect();
                lines.sort();
                lines
            };
            ensure!(
                sorted(&plain) == sorted(&through),
                "{path}: {plain} {through}"
            );
        }
        ensure!(web.curl(&["-i"], "/ok")?.contains("X-Mixed-CASE: kept"));
        Ok(())
    });
}

#[test]
fn large_bodies_go_both_ways_whole() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{}")?;
        let file = web.client.scratch("body");
        std::fs::write(&file, vec![b'z'; 20_000_000])?;
        let upload = format!("@{}", file.display());
        let sum = web
            .client
            .run(["sha256sum", &file.to_string_lossy()])?
            .success()?;
        let sum = sum.split_whitespace().next().context("no sum")?;
        for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
            let arguments = [&["-X", "POST", "--data-binary", &upload], more].concat();
            let heard = web.curl(&arguments, "/sum")?;
            ensure!(heard == format!("20000000 {sum}"), "{heard}");
        }
        Ok(())
    });
}

#[test]
fn connections_are_kept_for_the_next_request_and_closed_ones_are_noticed() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{}")?;
        for _ in 0..10 {
            ensure!(web.status(&[], "/ok")?.0 == 200);
            // Those without a body, too.
            ensure!(web.status(&["-I"], "/ok")?.0 == 200);
            ensure!(web.status(&[], "/status?code=204")?.0 == 204);
            ensure!(web.status(&[], "/status?code=304")?.0 == 304);
        }
        let log = Web::log(&web.server)?;
        // One for all of them, and that of this question.
        ensure!(asked(&log, "connections") <= 3, "{log}");
        // The server closes after each without saying so.
        for _ in 0..10 {
            ensure!(web.curl(&[], "/close")? == "server");
        }
        Ok(())
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{}")?;
        let request =
            |path: &str, more: &str| format!("GET {path} HTTP/1.1\\r\\nHost: a\\r\\n{more}\\r\\n");
        let all = request("/slow?ms=200", "")
            + &request("/status?code=404", "")
            + &request("/ok", "Connection: close\\r\\n");
        let answers = web.raw(&[&all])?;
        let statuses: Vec<&str> = answers
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|it| &it[..3])
            .collect();
        ensure!(statuses == ["200", "404", "200"], "{answers}");
        Ok(())
    });
}

#[test]
fn a_switched_protocol_is_byte_exact_and_may_half_close() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(
            node,
            "{timeouts: {request: 300ms, idle: 300ms}, retries: {}}",
        )?;
        let request = "GET /echo HTTP/1.1\\r\\nHost: a\\r\\nConnection: upgrade\\r\\nUpgrade: test\\r\\n\\r\\n";
        // What follows at once, and what comes long after the request's time.
        let heard = web.raw(&[
            "--end",
            "--wait",
            "0.6",
            &format!("{request}one"),
            "two\\xff",
            "three",
        ])?;
        let (head, rest) = heard.split_once("\r\n\r\n").context("no head")?;
        ensure!(head.starts_with("HTTP/1.1 101"), "{heard}");
        ensure!(head.to_lowercase().contains("upgrade: test"), "{heard}");
        ensure!(
            rest.starts_with("hionetwo") && rest.ends_with("threebye"),
            "{heard}"
        );
        // A switch to HTTP/2 is not passed on: nobody would look into it.
        let h2c = "GET /head HTTP/1.1\\r\\nHost: a\\r\\nConnection: Upgrade, HTTP2-Settings\\r\\n\
                   Upgrade: h2c\\r\\nHTTP2-Settings: AAMAAABkAAQAAP__\\r\\n\\r\\n";
        let heard = web.raw(&["--end", h2c])?.to_lowercase();
        ensure!(
            heard.starts_with("http/1.1 200") && !heard.contains("h2c"),
            "{heard}"
        );
        Ok(())
    });
}

#[test]
fn connect_is_refused_with_the_reason() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{}")?;
        let heard = web.raw(&[
            "--end",
            "CONNECT a.b:443 HTTP/1.1\\r\\nHost: a.b:443\\r\\n\\r\\n",
        ])?;
        ensure!(
            heard.starts_with("HTTP/1.1 405") && heard.contains("connect_method"),
            "{heard}"
        );
        Ok(())
    });
}

#[test]
fn http2_is_spoken_on_both_sides() {
    scenario(|node| {
        let web = Web::new(node)?;
        let port = 8082;
        let directory = web.server.scratch("nginx");
        let _nginx = nginx(&web.server, &directory, &format!("{port} http2"))?.listening(port)?;
        std::fs::write(directory.join("file"), vec![b'f'; 5_000_000])?;
        let _agent = node.agent(&web.config(node, &[&at(SERVER, port)], "{}"))?;
        let text = web.curl(&["--http2-prior-knowledge", "-w", " %{http_version}"], "/")?;
        ensure!(text == format!("HTTP/2.0 {WEB} 2"), "{text}");
        let size = [
            "--http2-prior-knowledge",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
        ];
        ensure!(web.curl(&size, "/file")? == "5000000");
        // Many streams on few connections.
        let url = format!("http://{WEB}/");
        let load = ["h2load", "-n", "5000", "-c", "4", "-m", "20", &url];
        let text = web.client.run(load)?.success()?;
        ensure!(text.contains("status codes: 5000 2xx"), "{text}");
        Ok(())
    });
}

#[test]
fn websockets_are_as_without_the_agent() {
    scenario(|node| {
        let web = Web::new(node)?;
        let port = 7005;
        let arguments = ["serve", SERVER, &port.to_string()];
        let mut server = web.server.spawn_python("websocket.py", arguments)?;
        server.wait_stdout("ready", BOUND)?;
        // None of these is for what is no request any more.
        let policy = "{timeouts: {request: 1s, perTry: 1s}, retries: {}}";
        let _agent = node.agent(&web.config(node, &[&at(SERVER, port)], policy))?;
        let url = format!("ws://{WEB}/");
        let seen = web.client.python("websocket.py", ["talk", &url])?.json()?;
        let expected = json!({
            "text": "héllo", "binary": true, "many": true, "pong": true, "close": [4001, "as asked"],
        });
        ensure!(seen == expected, "{seen}");
        Ok(())
    });
}

#[test]
fn who_closed_its_half_gets_what_begins_soon_and_who_has_gone_is_noticed() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{}")?;
        let half = "import socket,sys,time\n\
            for path in sys.argv[2:]:\n\
            \x20   c = socket.create_connection((sys.argv[1], 80), 10)\n\
            \x20   c.sendall(b'GET ' + path.encode() + b' HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')\n\
            \x20   c.shutdown(socket.SHUT_WR)\n\
            \x20   begun, heard = time.time(), b''\n\
            \x20   try:\n\
            \x20       while data := c.recv(4096): heard += data\n\
            \x20   except ConnectionResetError: pass\n\
            \x20   print(path, len(heard.split(b'\\r\\n\\r\\n')[-1]), round(time.time() - begun))\n";
        let paths = ["/slow?ms=400", "/drip?n=25", "/slow?ms=4000"];
        let mut argv = vec!["python3", "-c", half, WEB];
        argv.extend(paths);
        let heard = web.client.run(argv)?.success()?;
        let heard: Vec<&str> = heard.lines().collect();
        // The second takes 2.5 s from its first byte on; the third is given up after one.
        ensure!(heard[0] == "/slow?ms=400 6 0", "{heard:?}");
        ensure!(heard[1].starts_with("/drip?n=25 25 "), "{heard:?}");
        ensure!(heard[2] == "/slow?ms=4000 0 1", "{heard:?}");
        ensure!(agent.json("destinations")?[0]["active"] == 0);
        Ok(())
    });
}

#[test]
fn an_answer_arrives_though_its_server_resets_the_upload_that_it_does_not_read() {
    const COUNT: u64 = 100;
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{retries: {attempts: 0}}")?;
        let upload = |path: &str| {
            let arguments = [at(WEB, 80), path.to_owned(), COUNT.to_string()];
            web.client.python("early_answer.py", arguments)?.json()
        };
        let outcome = upload("/refuse")?;
        ensure!(outcome == json!({"417 refused": COUNT}), "{outcome}");
        // Only its end tells that this one is whole, and a reset is none: so it lacks the last chunk.
        let outcome = upload("/refuse?to=end")?;
        ensure!(
            outcome == json!({"417 7\r\nrefused\r\n": COUNT}),
            "{outcome}"
        );
        let destinations = agent.json("destinations")?;
        let answered = &destinations[0]["answered"];
        ensure!(answered["4xx"] == 2 * COUNT, "{destinations}");
        Ok(())
    });
}
