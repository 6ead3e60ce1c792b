//! The demo's cast: two clients and a server, each in its pod, with programs nobody here wrote.

use super::narrate::{command, lines};
use crate::interrupt::{self, Running};
use crate::lab::{self, Lab, Pod, PodEntry};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PORT: u16 = 8080;
/// How long a program may take to do what is expected of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Larger than all the buffers on its way, so that a slow reader holds the connection open.
const LARGE_FILE: u64 = 64 << 20;

/// The pods and the server that runs in one of them.
pub struct Scene {
    lab: Lab,
    client_a: Pod,
    client_b: Pod,
    server: Pod,
    server_log: PathBuf,
    _server: Running,
}

/// What came of one request: the client's side and the server's.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the client printed.
    pub answer: String,
    /// The client's address in the server's log.
    pub address: String,
}

impl Scene {
    /// Makes the pods and starts the server.
    pub fn open() -> Result<Self> {
        let lab = Lab::open("mesh-demo")?;
        let client_a = lab.pod("client-a", "10.77.0.11")?;
        let client_b = lab.pod("client-b", "10.77.0.12")?;
        let server = lab.pod("server", "10.77.0.30")?;
        let server_log = lab.file("server.log");
        let running = start_server(&lab, &server, &server_log)?;
        let scene = Self {
            lab,
            client_a,
            client_b,
            server,
            server_log,
            _server: running,
        };
        scene.wait_for_server()?;
        Ok(scene)
    }

    /// The lab they are in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The client whose connects go direct when there is no agent.
    pub fn open_client(&self) -> &Pod {
        &self.client_a
    }

    /// The client whose connects are refused when there is no agent.
    pub fn closed_client(&self) -> &Pod {
        &self.client_b
    }

    /// Address and port of the server.
    pub fn server(&self) -> String {
        format!("{}:{PORT}", self.server.address)
    }

    /// The small file on the server.
    pub fn url(&self) -> String {
        format!("http://{}/hello", self.server())
    }

    /// The addresses of both clients, in the order of [`Self::requests`].
    pub fn client_addresses(&self) -> [&'static str; 2] {
        [self.client_a.address, self.client_b.address]
    }

    /// Says who is who.
    pub fn introduce(&self) {
        for pod in [&self.client_a, &self.client_b, &self.server] {
            lines(&format!(
                "{:<10} {}  {}",
                pod.name,
                pod.address,
                pod.netns()
            ));
        }
        command(self.server.name, &format!("python3 -m http.server {PORT}"));
    }

    /// The agent's configuration: one pod to stay reachable at any price, one never to go unseen.
    pub fn configuration(&self) -> String {
        let pods = [
            PodEntry::of(
                &self.client_a,
                &["capture: {outbound: true}", "onAgentDown: open"],
            ),
            PodEntry::of(
                &self.client_b,
                &["capture: {outbound: true}", "onAgentDown: closed"],
            ),
        ];
        lab::configuration(&self.lab, &pods)
    }

    /// One request by curl from one client, one by Python from the other.
    pub fn requests(&self) -> Result<Vec<Seen>> {
        let url = self.url();
        let fetch = format!("print(urlopen('{url}', timeout=9).read().decode())");
        let python = format!("from urllib.request import urlopen; {fetch}");
        command(self.client_a.name, &format!("curl -sS {url}"));
        let curl = ["-sS", "--max-time", "9", &url];
        let first = self.request(self.client_a.command("curl").args(curl))?;
        command(self.client_b.name, &format!("python3 -c \"…; {fetch}\""));
        let second = self.request(self.client_b.command("python3").args(["-c", &python]))?;
        Ok(vec![first, second])
    }

    fn request(&self, client: &mut Command) -> Result<Seen> {
        let logged_before = self.server_lines()?.len();
        let output = client.output().context("cannot start a client")?;
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            bail!(
                "the request failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let logged = self.next_server_line(logged_before)?;
        lines(&answer);
        lines(&format!("server's log: {logged}"));
        let address = logged.split(' ').next().unwrap_or_default().to_owned();
        Ok(Seen { answer, address })
    }

    /// A request that lasts until what is returned is dropped.
    pub fn slow_request(&self) -> Result<Running> {
        let logged_before = self.server_lines()?.len();
        let url = format!("http://{}/large", self.server());
        command(
            self.client_a.name,
            &format!("curl --limit-rate 50k {url} &"),
        );
        let mut slow = quiet(self.client_a.command("curl"));
        slow.args(["-sS", "--limit-rate", "50k", "-o", "/dev/null", &url]);
        let running = interrupt::spawn(&mut slow)?;
        self.next_server_line(logged_before)?;
        Ok(running)
    }

    /// Removes everything and checks that it is gone.
    pub fn close(self) -> Result<()> {
        let Self {
            lab,
            _server: server,
            ..
        } = self;
        drop(server);
        let cgroup = lab.cgroup().to_owned();
        lab.close()?;
        ensure!(!cgroup.exists(), "{} is still there", cgroup.display());
        Ok(())
    }

    fn server_lines(&self) -> Result<Vec<String>> {
        let log = fs::read_to_string(&self.server_log).context("cannot read the server's log")?;
        Ok(log
            .lines()
            .filter(|line| line.contains("HTTP/1.1\""))
            .map(str::to_owned)
            .collect())
    }

    /// The line of the request after the first `count`. The server logs before it answers, but
    /// from a thread of its own.
    fn next_server_line(&self, count: usize) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.server_lines()?.into_iter().nth(count) {
                return Ok(line);
            }
            ensure!(
                Instant::now() < deadline,
                "the server has logged no request"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_for_server(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut probe = quiet(self.server.command("curl"));
            let url = self.url();
            if probe
                .args(["-s", "--max-time", "2", &url])
                .status()
                .is_ok_and(|it| it.success())
            {
                return Ok(());
            }
            let log = fs::read_to_string(&self.server_log).unwrap_or_default();
            ensure!(
                Instant::now() < deadline,
                "the server does not answer:\n{log}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn start_server(lab: &Lab, pod: &Pod, log: &PathBuf) -> Result<Running> {
    let files = lab.file("served");
    fs::create_dir(&files).context("cannot create the directory to serve")?;
    fs::write(files.join("hello"), "hello from the server\n").context("cannot write a file")?;
    // Sparse: takes no room.
    File::create(files.join("large"))
        .and_then(|file| file.set_len(LARGE_FILE))
        .context("cannot write a file")?;
    let mut server = pod.command("python3");
    let port = PORT.to_string();
    server.args([
        "-u",
        "-m",
        "http.server",
        &port,
        "--bind",
        pod.address,
        "--directory",
    ]);
    server
        .arg(&files)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    server.stderr(File::create(log).context("cannot create the server's log")?);
    interrupt::spawn(&mut server)
}

fn quiet(mut command: Command) -> Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
