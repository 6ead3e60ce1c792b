//! What `docs/resilience.md` simulates, with real processes: the same directions at a small scale.
//!
//! Two servers with two workers each, 20 ms for a request: 200 requests a second, of which 80 are asked for.

use std::{
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use mesh_tests::{Agent, Node, Pod, Process, Scenario, say};

use super::{BOUND, PORT, WEB};
use crate::peers::{CLIENT, OTHER, SERVER, at};

const RATE: u32 = 80;
/// Seconds in which all is well, in which it is not, and after that.
const PHASES: [usize; 3] = [3, 4, 10];

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Clients {
    /// Give a try up early, and try again at once.
    Naive,
    /// What the agent has.
    Ours,
}

impl Clients {
    const fn policy(self) -> &'static str {
        match self {
            Self::Naive => {
                "{timeouts: {request: 1s, perTry: 250ms}, \
                 retries: {attempts: 3, on: [5xx, reset, connect-failure, per-try-timeout], \
                           budget: {ratio: 1, floor: 1000}, backoff: {base: 1ms, max: 1ms}}}"
            }
            Self::Ours => {
                "{timeouts: {request: 1s, perTry: 250ms}, retries: {attempts: 2}, \
                 breaker: {consecutive: 10, failureRatio: 0.5, openFor: {base: 500ms, max: 2s}, \
                           throttle: {}, ejection: {consecutive: 5, base: 1s, max: 5s}}}"
            }
        }
    }

    const fn overload(self) -> &'static [&'static str] {
        match self {
            Self::Naive => &[],
            Self::Ours => &[
                "capture: {outbound: false, inbound: true, inboundProtocol: auto}",
                "overload: {concurrency: 2, admission: {}}",
            ],
        }
    }
}

/// A client, and two servers that can do so much and no more.
struct Services {
    client: Pod,
    pods: [Pod; 2],
    servers: [Option<Process>; 2],
    _agent: Agent,
}

/// What was seen in one phase.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    asked: f64,
    useful: f64,
    critical: f64,
    critical_useful: f64,
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    before: f64,
    during: f64,
    /// From the ninth second after that on.
    after: f64,
    critical: f64,
    /// Useful answers a second while it was wrong, once that had settled.
    goodput: f64,
    /// Requests that came to servers for each that clients had; of servers that were not restarted.
    amplification: f64,
}

impl Services {
    fn new(node: &Node, clients: Clients) -> Result<Self> {
        let client = node.pod("client", CLIENT, None)?;
        let pods = [
            node.pod("server", SERVER, None)?,
            node.pod("other", OTHER, None)?,
        ];
        let mut config = node.config().pod(&client);
        if clients == Clients::Ours {
            config = pods.iter().fold(config, |config, pod| {
                config.pod_with(pod, clients.overload())
            });
        }
        let config = config.after(&format!(
            "destinations: [{{name: web, addresses: [{WEB}], port: 80, \
             endpoints: [{{address: '{}'}}, {{address: '{}'}}], policy: {}}}]",
            at(SERVER, PORT),
            at(OTHER, PORT),
            clients.policy()
        ));
        let agent = node.agent(&config)?;
        let mut services = Self {
            client,
            pods,
            servers: [None, None],
            _agent: agent,
        };
        services.start(0)?;
        services.start(1)?;
        Ok(services)
    }

    fn start(&mut self, number: usize) -> Result<()> {
        let pod = &self.pods[number];
        let address = at(pod.address(), PORT);
        let mut server = pod.spawn_python("capacity_server.py", [&address, "2", "20"])?;
        server.wait_stdout("ready", BOUND)?;
        self.servers[number] = Some(server);
        Ok(())
    }

    fn stop(&mut self, number: usize) -> Result<()> {
        match self.servers[number].take() {
            Some(mut server) => server.kill(),
            None => Ok(()),
        }
    }

    /// Asks a server something beside the load: from its own pod, so that no agent has a say.
    fn control(&self, number: usize, path: &str) -> Result<String> {
        let pod = &self.pods[number];
        let url = format!("http://{}{path}", at(pod.address(), PORT));
        pod.run(["curl", "-sS", "--max-time", "5", &url])?.success()
    }

    fn slower(&self, number: usize, times: u32) -> Result<()> {
        self.control(number, &format!("/slower?times={times}"))?;
        Ok(())
    }

    fn came(&self) -> Result<f64> {
        let counts = (0..2).map(|number| Ok(self.control(number, "/count")?.parse::<f64>()?));
        counts.sum()
    }
}

/// What happens while requests come, at these seconds after the first.
type Happens<'a> = &'a [(usize, fn(&mut Services) -> Result<()>)];

fn run(clients: Clients, happens: Happens<'_>, flash: u32) -> Result<Seen> {
    let node = Node::new()?;
    let mut services = Services::new(&node, clients)?;
    let seconds = PHASES.iter().sum::<usize>();
    let [before, during, _] = PHASES;
    let mut arguments = vec![at(WEB, 80), seconds.to_string(), RATE.to_string()];
    if flash > 0 {
        let (begin, end) = (before, before + during);
        arguments.extend([begin.to_string(), end.to_string(), flash.to_string()]);
    }
    let mut load = services.client.spawn_python("open_load.py", &arguments)?;
    load.wait_stdout("begun", BOUND)?;
    let begun = Instant::now();
    for (second, happens) in happens {
        let at = Duration::from_secs(*second as u64);
        // The load has a time-table: this is one of its lines.
        sleep(at.saturating_sub(begun.elapsed()));
        happens(&mut services)?;
    }
    let text = load.finish(BOUND * 2)?.success()?;
    let line = text.lines().last().context("no figures")?;
    let rows: Vec<[f64; 4]> = serde_json::from_str(line)?;
    let came = services.came()?;
    let sum = |from: usize, to: usize| {
        rows[from..to]
            .iter()
            .fold(Phase::default(), |sum, row| Phase {
                asked: sum.asked + row[0],
                useful: sum.useful + row[1],
                critical: sum.critical + row[2],
                critical_useful: sum.critical_useful + row[3],
            })
    };
    let share = |phase: Phase| phase.useful / phase.asked.max(1.0);
    let wrong = sum(before, before + during);
    let settled = sum(before + 2, before + during);
    let seen = Seen {
        before: share(sum(1, before)),
        during: share(wrong),
        after: share(sum(seconds - 2, seconds)),
        critical: wrong.critical_useful / wrong.critical.max(1.0),
        goodput: settled.useful / (during as f64 - 2.0),
        amplification: came / sum(0, seconds).asked,
    };
    say(&format!("{clients:?}: {seen:.2?}"));
    Ok(seen)
}

/// A scenario with naive clients and with ours.
type Both = fn(Happens<'_>, u32) -> Result<(Seen, Seen)>;

/// Naive clients first, then ours.
fn one_by_one(happens: Happens<'_>, flash: u32) -> Result<(Seen, Seen)> {
    let naive = run(Clients::Naive, happens, flash)?;
    Ok((naive, run(Clients::Ours, happens, flash)?))
}

/// Both at once, where neither asks for so much that the other lacks a processor.
fn both_at_once(happens: Happens<'_>, flash: u32) -> Result<(Seen, Seen)> {
    thread::scope(|scope| {
        let name = thread::current().name().unwrap_or("scenario").to_owned();
        let naive = thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, || run(Clients::Naive, happens, flash))?;
        let ours = run(Clients::Ours, happens, flash);
        let naive = naive.join();
        let naive = naive.map_err(|_| anyhow!("the naive clients' run panicked"))??;
        Ok((naive, ours?))
    })
}

/// Runs it with naive clients and with ours, and checks what holds in each scenario.
fn compare(
    run_both: Both,
    happens: Happens<'_>,
    flash: u32,
    check: impl FnOnce(Seen, Seen) -> Result<()>,
) {
    Scenario::default()
        .alone()
        .bound(Duration::from_mins(2))
        .run(|_node| {
            let (naive, ours) = run_both(happens, flash)?;
            ensure!(ours.before > 0.95, "not well before: {ours:?}");
            ensure!(ours.after >= 0.95 * ours.before, "not recovered: {ours:?}");
            ensure!(ours.amplification <= 1.2, "{ours:?}");
            check(naive, ours)
        });
}

#[test]
fn one_slow_server_is_left_alone() {
    let happens: Happens<'_> = &[(3, |it| it.slower(0, 20)), (7, |it| it.slower(0, 1))];
    compare(both_at_once, happens, 0, |naive, ours| {
        ensure!(ours.during > 0.9, "{ours:?}, naive {naive:?}");
        Ok(())
    });
}

#[test]
fn after_an_outage_all_is_well_soon() {
    let happens: Happens<'_> = &[
        (3, |it| it.stop(0).and_then(|()| it.stop(1))),
        (7, |it| it.start(0).and_then(|()| it.start(1))),
    ];
    compare(both_at_once, happens, 0, |naive, ours| {
        ensure!(
            ours.during < 0.2 && naive.during < 0.2,
            "an outage? {ours:?}, {naive:?}"
        );
        Ok(())
    });
}

#[test]
fn a_retry_storm_does_not_outlive_its_cause() {
    let happens: Happens<'_> = &[
        (3, |it| it.slower(0, 6).and_then(|()| it.slower(1, 6))),
        (7, |it| it.slower(0, 1).and_then(|()| it.slower(1, 1))),
    ];
    compare(one_by_one, happens, 0, |naive, ours| {
        ensure!(naive.amplification > 1.5, "no storm: {naive:?}");
        ensure!(ours.critical > 0.9, "{ours:?}, naive {naive:?}");
        Ok(())
    });
}

#[test]
fn a_flash_crowd_gets_what_the_servers_can_do() {
    compare(one_by_one, &[], 600, |naive, ours| {
        // Of 200; the machine has two cores for all of this.
        ensure!(ours.goodput > 140.0, "{ours:?}, naive {naive:?}");
        ensure!(ours.goodput > naive.goodput, "{ours:?}, naive {naive:?}");
        ensure!(ours.critical > 0.95, "{ours:?}, naive {naive:?}");
        Ok(())
    });
}

#[test]
fn a_rolling_restart_is_hardly_noticed() {
    let happens: Happens<'_> = &[
        (3, |it| it.stop(0)),
        (4, |it| it.start(0)),
        (6, |it| it.stop(1)),
        (7, |it| it.start(1)),
    ];
    compare(both_at_once, happens, 0, |naive, ours| {
        ensure!(ours.during > 0.8, "{ours:?}, naive {naive:?}");
        Ok(())
    });
}
