//! Other ways than those of a client's requests over IPv4: to a server in a pod, and over IPv6.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Config, Node, Scenario, say};

use super::{
    BOUND, EVERY, Exact, PORT, admin, source, traces_to,
    truth::{COUNT, FAR, ensure_in, link, medians_to, took, undisturbed},
};
use crate::peers::{SERVER, SERVER6, at};

/// Where the server listens.
const LISTENING: u16 = 8090;

/// As seldom with a delay as without: caches that have become cold are none of it.
const SELDOM: &str = "every_us=20000";

/// How requests get to a server, and what they are told as.
struct Way {
    config: fn(&Exact, &Node) -> Config,
    /// Where the server listens.
    server: String,
    /// Where its clients find it.
    asked: String,
    /// Where the agent does.
    endpoint: String,
    pod: &'static str,
    destination: String,
}

/// The server's pod is enrolled, not the client's.
fn inbound(exact: &Exact, node: &Node) -> Config {
    let capture = "capture: {outbound: false, inbound: true, inboundProtocol: auto}";
    let config = node.config().pod_with(&exact.server, &[capture]);
    config.after(EVERY)
}

/// What requests to a server in the pod are told as, that the agent finds at `endpoint`.
fn in_pod(endpoint: &str) -> String {
    format!("inbound:server:{endpoint}")
}

/// The client's pod is.
fn outbound6(exact: &Exact, node: &Node) -> Config {
    node.config().pod(&exact.client).after(&format!(
        "destinations: [{{name: web6, addresses: ['{SERVER6}'], port: {LISTENING}}}]\n{EVERY}"
    ))
}

impl Way {
    fn to_pod(server: String, asked: String, endpoint: String) -> Self {
        Self {
            config: inbound,
            destination: in_pod(&endpoint),
            server,
            asked,
            endpoint,
            pod: "server",
        }
    }

    /// A server on this way that takes 5 ms longer is slow, and nothing else.
    fn is_measured(&self) {
        Scenario::default().alone().run(|node| {
            let exact = Exact::new(node)?;
            let mut server = (exact.server).spawn_python("exact_server.py", [&self.server])?;
            server.wait_stdout("ready", BOUND)?;
            let agent = node.agent(&(self.config)(&exact, node))?;
            undisturbed(|| {
                let of = |target: &str| {
                    exact.ask_at(&self.asked, target, COUNT, &[SELDOM])?;
                    medians_to(node, &self.destination, COUNT as usize)
                };
                let (without, with) = (of("/wait?us=1000")?, of("/wait?us=6000")?);
                ensure_in(&["server"], 5_000.0, &without, &with)
            })?;
            self.ensure_told(node)?;
            agent.terminate(BOUND)
        });
    }

    /// By its names, and from the stamps of the kernel.
    fn ensure_told(&self, node: &Node) -> Result<()> {
        let latency = admin(node, "/latency")?;
        let series = latency["series"].as_array().context("no list")?;
        ensure!(series.len() == 1, "{latency}");
        let told = &series[0];
        ensure!(
            told["pod"] == self.pod
                && told["destination"] == *self.destination
                && told["endpoint"] == *self.endpoint,
            "{told}"
        );
        let (served, stamps) = (&told["sinceStart"], &latency["stamps"]);
        ensure!(
            served["count"] == stamps["measured"]
                && served["sources"]["software"] == served["count"],
            "{latency}"
        );
        ensure!(
            stamps["unmatched"] == 0 && stamps["unfinished"] == 0,
            "{stamps}"
        );
        for trace in traces_to(node, &self.destination, COUNT as usize)? {
            for what in [
                "request: first byte came",
                "request: sent by the device",
                "answer: first byte came",
                "answer: sent by the device",
            ] {
                ensure!(source(&trace, what)? == "software", "{what}: {trace}");
            }
        }
        Ok(())
    }
}

#[test]
fn a_server_in_a_pod_that_takes_5_ms_longer() {
    // As most do it listens on every address, and the agent finds it at the nearest.
    let [server, asked, endpoint] = ["0.0.0.0", SERVER, "127.0.0.1"].map(|it| at(it, LISTENING));
    Way::to_pod(server, asked, endpoint).is_measured();
}

#[test]
fn a_server_in_a_pod_that_takes_5_ms_longer_over_ipv6() {
    let server = at(SERVER6, LISTENING);
    Way::to_pod(server.clone(), server.clone(), server).is_measured();
}

#[test]
fn a_server_that_takes_5_ms_longer_over_ipv6() {
    let server = at(SERVER6, LISTENING);
    let way = Way {
        config: outbound6,
        server: server.clone(),
        asked: server.clone(),
        endpoint: server,
        pod: "client",
        destination: "web6".to_owned(),
    };
    way.is_measured();
}

/// Its first stamp is of when the request was there, and its last of when the answer left.
#[test]
fn what_the_clients_network_takes_is_no_part_of_a_request_to_a_server_in_a_pod() {
    Scenario::default().alone().run(|node| {
        let exact = Exact::new(node)?;
        let _link = link(&exact, [7, 3])?;
        let mut far = (exact.server).spawn_python("exact_server.py", [at(FAR, PORT)])?;
        far.wait_stdout("ready", BOUND)?;
        let agent = node.agent(&inbound(&exact, node))?;
        undisturbed(|| {
            let of = |host: &str| {
                let server = at(host, PORT);
                let answers = exact.ask_at(&server, "/wait?us=2000", COUNT, &[SELDOM])?;
                let medians = medians_to(node, &in_pod(&server), COUNT as usize)?;
                Ok::<_, anyhow::Error>((took(&answers, "took")?, medians))
            };
            let ((near, without), (far, with)) = (of(SERVER)?, of(FAR)?);
            say(&format!("the client waits for {near:.0} and {far:.0} µs"));
            ensure!(far - near > 10_000.0, "{near} and {far}");
            ensure_in(&[], 10_000.0, &without, &with)
        })?;
        agent.terminate(BOUND)
    });
}
