//! A real Prometheus, and the expressions of a dashboard.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Node, Process, wait_until};
use serde_json::Value;

use super::BOUND;

/// It makes its database first.
const START: Duration = Duration::from_mins(1);

/// A Prometheus that scrapes one agent every second; killed when dropped.
pub struct Prometheus<'a> {
    node: &'a Node,
    port: u16,
    _process: Process,
}

impl<'a> Prometheus<'a> {
    /// Starts it.
    pub fn of(node: &'a Node, metrics_port: u16) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = node.dir().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s}}\nscrape_configs:\n\
                 - {{job_name: mesh-agent, static_configs: [{{targets: ['127.0.0.1:{metrics_port}']}}]}}\n"
            ),
        )?;
        let argv = [
            "prometheus".to_owned(),
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", node.dir().join("tsdb").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--enable-feature=exemplar-storage".to_owned(),
        ];
        let mut process = node.spawn("pods", argv)?;
        wait_until(START, "Prometheus to be ready", || {
            ensure!(process.is_running()?, "{}", process.stderr()?);
            let said = process.stderr()?;
            Ok(said.contains("Server is ready to receive web requests"))
        })?;
        Ok(Self {
            node,
            port,
            _process: process,
        })
    }

    /// What it answers to a question of its interface for programs.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut argv: Vec<String> = ["curl", "-sS", "-m", "10", "--noproxy", "*", "--get"]
            .map(str::to_owned)
            .into();
        for (name, value) in parameters {
            argv.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        argv.push(format!("http://127.0.0.1:{}/api/v1/{path}", self.port));
        let answer = self.node.spawn("pods", argv)?.finish(BOUND)?.json()?;
        ensure!(answer["status"] == "success", "{parameters:?}: {answer}");
        Ok(answer["data"].clone())
    }

    /// The series of an expression now.
    pub fn now(&self, expression: &str) -> Result<Vec<Value>> {
        let data = self.ask("query", &[("query", expression)])?;
        Ok(data["result"].as_array().context("no result")?.clone())
    }

    /// The series of an expression in the last seconds, a point each.
    pub fn lately(&self, expression: &str, seconds: f64) -> Result<Value> {
        let now = self.ask("query", &[("query", "time()")])?;
        let now = now["result"][0].as_f64().context("no time")?;
        let (start, end) = ((now - seconds).to_string(), now.to_string());
        let parameters = [
            ("query", expression),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        self.ask("query_range", &parameters)
    }
}

/// An expression with what Grafana puts in place of its variables, when all is chosen.
pub fn filled_in(expression: &str) -> String {
    let mut text = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "10s"),
        ("$__range", "1m"),
        ("$instance", ".*"),
        ("$destination", ".*"),
        ("$pod", ".*"),
    ] {
        text = text.replace(variable, value);
    }
    text
}
