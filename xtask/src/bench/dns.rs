//! DNS under load: dnsperf asks dnsmasq, neither of which anybody here wrote.

use super::variant::start_server;
use super::workload::{client_program, listens};
use crate::interrupt::Running;
use crate::lab::{Lab, Pod};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

/// The one name that is asked for again and again.
const KNOWN: &str = "known.bench.test";
/// Distinct names, asked for in turn: their answers are many times what the agent keeps (1 MiB), so
/// that none is there any more when its turn comes again.
const UNKNOWN: usize = 100_000;
const PORT: u16 = 53;

/// What dnsperf saw.
pub struct Seen {
    /// Queries answered per second with many under way.
    pub rate: f64,
    /// How many they were in all.
    pub queries: f64,
    /// Mean time to an answer with a single query under way at a time, in microseconds.
    pub latency: f64,
}

/// dnsmasq, answering for every name below bench.test.
pub fn start_server_in(lab: &Lab, server: &Pod) -> Result<Running> {
    let line = |name: &str| format!("{name} A\n");
    fs::write(lab.file("dns-known"), line(KNOWN)).context("cannot write the known name")?;
    let mut names = String::new();
    for number in 0..UNKNOWN {
        let _infallible = writeln!(names, "name-{number}.bench.test A");
    }
    fs::write(lab.file("dns-unknown"), names).context("cannot write the unknown names")?;
    let mut dnsmasq = server.command("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
        "--local=/test/",
        "--local-ttl=3600",
        "--address=/bench.test/192.0.2.1",
    ]);
    start_server(dnsmasq, || listens(server, PORT))
}

/// Asks for `length` with a hundred queries under way, then as long with one.
pub fn run(lab: &Lab, client: &Pod, server: &Pod, known: bool, length: Duration) -> Result<Seen> {
    let names = lab.file(if known { "dns-known" } else { "dns-unknown" });
    let ask = |clients: &str, under_way: &str| -> Result<String> {
        let mut dnsperf = client_program(client, "dnsperf");
        dnsperf.args(["-s", server.address, "-c", clients, "-q", under_way]);
        dnsperf.args(["-l", &length.as_secs().to_string(), "-d"]);
        let output = dnsperf
            .arg(&names)
            .output()
            .context("cannot start dnsperf")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "dnsperf: {errors}{text}");
        let lost = number(&text, "Queries lost:")?;
        ensure!(lost == 0.0, "dnsperf lost {lost} queries: {text}");
        ensure!(text.contains("NOERROR"), "no good answers: {text}");
        Ok(text)
    };
    let many = ask("8", "100")?;
    let single = ask("1", "1")?;
    let queries = |text: &str| number(text, "Queries completed:");
    Ok(Seen {
        rate: number(&many, "Queries per second:")?,
        queries: queries(&many)? + queries(&single)?,
        latency: number(&single, "Average Latency (s):")? * 1e6,
    })
}

/// The number after `label` in dnsperf's summary.
fn number(text: &str, label: &str) -> Result<f64> {
    let rest = text.split_once(label).map(|(_, rest)| rest);
    let word = rest.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("dnsperf says no {label:?}: {text}"))
}
