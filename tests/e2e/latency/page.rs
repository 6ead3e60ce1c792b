//! The page at `/` of the metrics port, in a browser.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Node, Process, Scenario, scenario, wait_until};
use serde_json::Value;

use super::{BOUND, EVERY, Exact};

/// A browser starts slowly where there is little of a processor.
const SLOW: Duration = Duration::from_mins(1);

/// A page in headless Chromium.
struct Browser {
    process: Process,
    commands: ChildStdin,
    asked: usize,
}

impl Browser {
    fn open(node: &Node, url: &str) -> Result<Self> {
        let mut argv = vec![
            url.to_owned(),
            node.dir().join("chromium").display().to_string(),
        ];
        // To look at them oneself.
        argv.extend(std::env::var("MESH_TEST_SHOTS"));
        let mut process = node.spawn_python("page.py", argv)?;
        process.wait_stdout("ready", SLOW)?;
        let commands = process.take_stdin().context("no standard input")?;
        Ok(Self {
            process,
            commands,
            asked: 1,
        })
    }

    fn ask(&mut self, command: &str) -> Result<Value> {
        writeln!(self.commands, "{command}")?;
        self.asked += 1;
        let mut line = String::new();
        wait_until(SLOW, command, || {
            ensure!(self.process.is_running()?, "{}", self.process.stderr()?);
            let text = self.process.stdout()?;
            let last = text.lines().nth(self.asked - 1);
            last.unwrap_or_default().clone_into(&mut line);
            Ok(text.matches('\n').count() >= self.asked)
        })?;
        Ok(serde_json::from_str(&line)?)
    }

    /// What a script finds, once `is_there`.
    fn wait(&mut self, script: &str, is_there: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut found = Value::Null;
        wait_until(BOUND, script, || {
            found = self.ask(&format!("run {script}"))?;
            Ok(is_there(&found))
        })
        .with_context(|| found.to_string())?;
        Ok(found)
    }

    /// What the page says, as a person reads it.
    fn wait_text(&mut self, part: &str) -> Result<()> {
        let has = |text: &Value| text.as_str().is_some_and(|text| text.contains(part));
        self.wait("return document.body.innerText", has)?;
        Ok(())
    }
}

/// How wide the server's part of the bar is drawn, of all of it.
const SERVER_SHARE: &str = "const bar = document.querySelector('tr[data-name=web] .split'); \
     return bar ? bar.querySelector('[data-stage=server]').getBoundingClientRect().width \
     / bar.getBoundingClientRect().width : null";

#[test]
fn the_page_shows_what_happens_and_asks_nobody_but_the_agent() {
    Scenario::default()
        .bound(Duration::from_mins(4))
        .run(|node| {
            let exact = Exact::new(node)?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let config = exact.config(node, EVERY, "{breaker: {consecutive: 5}}");
            let mut agent = node.agent(&config.agent(&format!("metrics: 127.0.0.1:{port}")))?;
            let url = format!("http://127.0.0.1:{port}/");
            let mut browser = Browser::open(node, &url)?;
            browser.ask("size 1280")?;
            browser.wait_text("there is no traffic to show")?;
            browser.wait_text("ready")?;
            browser.ask("shot empty")?;
            // An answer of 256 KiB takes longer than the server.
            exact.ask("/body?bytes=262144&us=3000", 30, &[])?;
            let small = browser.wait(SERVER_SHARE, |it| it.as_f64().is_some_and(|it| it > 0.0));
            let small = small?.as_f64().context("no number")?;
            ensure!(small < 0.5, "{small}");
            let argv = [
                "10.96.0.10:80",
                "/wait?us=20000",
                "100000",
                "every_us=30000",
            ];
            let mut load = exact.client.spawn_python("exact_client.py", argv)?;
            let large = browser.wait(SERVER_SHARE, |it| it.as_f64().is_some_and(|it| it > 0.9))?;
            let said = "return document.querySelector('tr[data-name=web]').innerText";
            let row = browser.wait(said, |row| {
                row.as_str()
                    .is_some_and(|row| row.contains("server 9") && row.contains("closed"))
            })?;
            mesh_tests::say(&format!(
                "server's part of the bar: {small:.2} → {large}; {row}"
            ));
            // By keyboard alone.
            browser.ask("press Tab Enter")?;
            let requests = "return document.querySelectorAll('#detail .request svg rect').length";
            browser.wait(requests, |count| count.as_u64() > Some(40))?;
            browser.wait_text("GET /wait")?;
            browser.wait(
                "return document.querySelectorAll('.charts svg path').length",
                |it| it.as_u64() == Some(4),
            )?;
            std::thread::sleep(Duration::from_secs(12));
            browser.ask("shot wide")?;
            // As on a telephone: nothing is cut off, nothing has to be moved sideways.
            browser.ask("size 400")?;
            let wide = "return document.documentElement.scrollWidth";
            browser.wait(wide, |it| it.as_f64().is_some_and(|it| it <= 400.0))?;
            let cut = "const box = document.querySelector('.figures'); return box.scrollWidth - box.clientWidth";
        browser.wait(cut, |it| *it == 0)?;
        browser.ask("shot narrow")?;
            browser.ask("dark")?;
            browser.ask("size 1280")?;
            browser.ask("shot dark")?;
            browser.ask("press Escape")?;
            browser.wait("return document.getElementById('detail').hidden", |it| {
                *it == true
            })?;
            let console = browser.ask("console")?;
            ensure!(console.as_array().is_some_and(Vec::is_empty), "{console}");
            let asked = browser.ask("requests")?;
            for address in asked.as_array().context("no list")? {
                let address = address.as_str().unwrap_or_default();
                ensure!(
                    address.starts_with(&url) || address.starts_with("data:"),
                    "{asked}"
                );
            }
            ensure!(asked.as_array().map_or(0, Vec::len) > 4, "{asked}");
            load.kill()?;
            agent.kill9()?;
            browser.wait_text("the agent does not answer")?;
            browser.ask("shot stopped")?;
            agent.start_again()?;
            browser.wait_text("ready · up")?;
            agent.terminate(BOUND)
        });
}

#[test]
fn the_page_is_for_who_asks_by_address_and_changes_nothing() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = exact.config(node, "latency: {sample: 0}", "{}");
        let agent = node.agent(&config.agent(&format!("metrics: 127.0.0.1:{port}")))?;
        let get = |host: &str, path: &str| -> Result<String> {
            let (url, host) = (
                format!("http://127.0.0.1:{port}{path}"),
                format!("Host: {host}"),
            );
            let argv = ["curl", "-sS", "-m", "5", "-i", "-H", &host, &url];
            node.spawn("pods", argv)?.finish(BOUND)?.success()
        };
        let page = get("127.0.0.1", "/")?;
        ensure!(
            page.contains("content-security-policy: default-src 'none'"),
            "{page}"
        );
        let nonce = |page: &str| -> Result<String> {
            let (_, rest) = page.split_once("script-src 'nonce-").context("no nonce")?;
            Ok(rest[..32].to_owned())
        };
        let another = get("localhost:1", "/")?;
        ensure!(nonce(&page)? != nonce(&another)?, "a nonce is used once");
        ensure!(page.contains(&format!("<script nonce=\"{}\">", nonce(&page)?)));
        for path in [
            "/",
            "/api/traces",
            "/api/latency",
            "/api/destinations",
            "/api/status",
        ] {
            let own = get("[::1]:15020", path)?;
            ensure!(own.starts_with("HTTP/1.1 200"), "{path}: {own}");
            let rebound = get("evil.example", path)?;
            ensure!(rebound.starts_with("HTTP/1.1 421"), "{path}: {rebound}");
            ensure!(rebound.lines().last() == Some("ask by IP address, or as localhost"));
        }
        // Prometheus may ask by any name.
        ensure!(get("node-7.example", "/metrics")?.starts_with("HTTP/1.1 200"));
        let next = get("127.0.0.1", "/api/traces?next=5")?;
        ensure!(next.starts_with("HTTP/1.1 400"), "{next}");
        exact.ask("/wait?us=0", 5, &[])?;
        ensure!(super::admin(node, "/latency")?["stamps"]["measured"] == 0);
        agent.terminate(BOUND)
    });
}
