//! Other ways than those of a client's requests over IPv4: to a server in a pod, and over IPv6.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Config, Node, Scenario, say};

use super::{
    BOUND, EVERY, Exact, PORT, admin, source, traces_to,
    truth::{COUNT, FAR, ensure_in, link, medians_to, took, undisturbed},
};
use crate::peers::{SERVER, SERVER6, at};

/// How requests get to a server, and what they are told as.
struct Way {
    config: fn(&Exact, &Node) -> Config,
    /// Where the server listens, and the client asks.
    server: String,
    pod: &'static str,
    destination: String,
}

/// The server's pod is enrolled, not the client's.
fn inbound(exact: &Exact, node: &Node) -> Config {
    let capture = "capture: {outbound: false, inbound: true, inboundProtocol: auto}";
    let config = node.config().pod_with(&exact.server, &[capture]);
    config.after(EVERY)
}

/// As requests to a server in the pod are told.
fn in_pod(server: &str) -> String {
    format!("inbound:server:{server}")
}

/// The client's pod is.
fn outbound6(exact: &Exact, node: &Node) -> Config {
    node.config().pod(&exact.client).after(&format!(
        "destinations: [{{name: web6, addresses: ['{SERVER6}'], port: {PORT}}}]\n{EVERY}"
    ))
}

impl Way {
    fn to_pod(host: &str) -> Self {
        let server = at(host, PORT);
        Self {
            config: inbound,
            destination: in_pod(&server),
            server,
            pod: "server",
        }
    }

    /// A server on this way that takes 5 ms is slow, and nothing else.
    fn is_measured(&self) {
        Scenario::default().alone().run(|node| {
            let exact = Exact::new(node)?;
            let mut server6 =
                (exact.server).spawn_python("exact_server.py", [at(SERVER6, PORT)])?;
            server6.wait_stdout("ready", BOUND)?;
            let agent = node.agent(&(self.config)(&exact, node))?;
            undisturbed(|| {
                let of = |target: &str| {
                    exact.ask_at(&self.server, target, COUNT, &[])?;
                    medians_to(node, &self.destination, COUNT as usize)
                };
                let (without, with) = (of("/wait")?, of("/wait?us=5000")?);
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
                && told["endpoint"] == *self.server,
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
fn a_server_in_a_pod_that_takes_5_ms() {
    Way::to_pod(SERVER).is_measured();
}

#[test]
fn a_server_in_a_pod_that_takes_5_ms_over_ipv6() {
    Way::to_pod(SERVER6).is_measured();
}

#[test]
fn a_server_that_takes_5_ms_over_ipv6() {
    let way = Way {
        config: outbound6,
        server: at(SERVER6, PORT),
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
                let answers = exact.ask_at(&server, "/wait?us=2000", COUNT, &[])?;
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
