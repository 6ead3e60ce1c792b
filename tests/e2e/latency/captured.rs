//! Stamps are those that tcpdump has of the same packets.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Pod, Process, Scenario, say, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{BOUND, EVERY, Exact, PORT, median, point, traces};

const COUNT: usize = 100;

/// tcpdump of one interface: the packets with something in them.
struct Capture {
    process: Process,
}

impl Capture {
    fn of(pod: &Pod, interface: &str, filter: &str) -> Result<Self> {
        // What has a payload: longer than its headers.
        let payload = "(ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2)) != 0";
        let filter = format!("tcp and ({filter}) and {payload}");
        let argv = [
            "tcpdump",
            "-i",
            interface,
            "-nn",
            "-q",
            "-tt",
            "-l",
            "--immediate-mode",
            "-Z",
            "root",
            "--time-stamp-precision=nano",
            &filter,
        ];
        let process = pod.spawn(argv)?;
        wait_until(BOUND, "tcpdump", || {
            Ok(process.stderr()?.contains("listening on"))
        })?;
        Ok(Self { process })
    }

    /// When each packet was seen, in microseconds since 1970, and whether it went to `port`.
    fn packets(self, port: u16, count: usize) -> Result<Vec<(f64, bool)>> {
        let to = format!(".{port}: ");
        wait_until(BOUND, "the packets", || {
            Ok(self.process.stdout()?.lines().count() >= count)
        })?;
        self.process.signal(Signal::SIGINT)?;
        let text = self.process.finish(BOUND)?.stdout;
        let packets = text
            .lines()
            .filter(|line| line.starts_with(|it: char| it.is_ascii_digit()));
        packets
            .map(|line| {
                let (at, rest) = line.split_once(' ').context("no time")?;
                let (seconds, nanos) = at.split_once('.').context("no fraction")?;
                let micros = seconds.parse::<f64>()? * 1e6 + nanos.parse::<f64>()? / 1e3;
                Ok((micros, rest.contains(&to)))
            })
            .collect()
    }
}

/// The median of how far the stamps `what` of requests are from the packets that went to `port`, or came from it.
fn off(traces: &[Value], what: &str, packets: &[(f64, bool)], is_to: bool) -> Result<f64> {
    let packets: Vec<f64> = packets
        .iter()
        .filter(|it| it.1 == is_to)
        .map(|it| it.0)
        .collect();
    ensure!(packets.len() == traces.len(), "{} packets", packets.len());
    let off: Result<Vec<f64>> = traces
        .iter()
        .zip(packets)
        .map(|(trace, seen)| {
            let began = trace["began"].as_f64().context("no time")? * 1e6;
            Ok((began + point(trace, what)? - seen).abs())
        })
        .collect();
    let off = median(off?);
    say(&format!("{what}: {off:.1} µs from what tcpdump has"));
    Ok(off)
}

#[test]
fn the_stamps_are_those_of_tcpdump() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let _agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        let server = Capture::of(&exact.client, "eth0", &format!("port {PORT}"))?;
        let client = Capture::of(&exact.client, "lo", "port 15001")?;
        exact.ask("/wait?us=1000", COUNT as u32, &[])?;
        let traces = traces(node, COUNT)?;
        let server = server.packets(PORT, 2 * COUNT)?;
        let client = client.packets(15001, 2 * COUNT)?;
        for (what, packets, is_to) in [
            ("request: first byte came", &client, true),
            ("request: sent by the device", &server, true),
            ("answer: first byte came", &server, false),
            ("answer: sent by the device", &client, false),
        ] {
            let off = off(&traces, what, packets, is_to)?;
            ensure!(off < 50.0, "{what}: {off}");
        }
        Ok(())
    });
}
