//! `top` in a real terminal: tmux is one.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{Node, agent_binary, scenario, wait_until};

use super::shown::wait_measured;
use super::{BOUND, EVERY, Exact};

/// A terminal of 80 columns and 24 lines.
struct Screen<'a> {
    node: &'a Node,
    socket: PathBuf,
}

impl<'a> Screen<'a> {
    fn run(node: &'a Node, command: &str) -> Result<Self> {
        let socket = node.dir().join("tmux.sock");
        let screen = Self { node, socket };
        // Whatever a person's own configuration says.
        screen.tmux([
            "-f",
            "/dev/null",
            "-u",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            command,
        ])?;
        Ok(screen)
    }

    fn tmux<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        let mut argv = vec![
            "tmux".into(),
            "-S".into(),
            self.socket.clone().into_os_string(),
        ];
        argv.extend(arguments.into_iter().map(|it| it.as_ref().to_owned()));
        self.node.spawn("pods", argv)?.finish(BOUND)?.success()
    }

    fn text(&self) -> Result<String> {
        self.tmux(["capture-pane", "-p"])
    }

    fn press(&self, key: &str) -> Result<()> {
        self.tmux(["send-keys", key])?;
        Ok(())
    }

    /// Waits until the screen has `part`.
    fn wait(&self, part: &str) -> Result<String> {
        let mut text = String::new();
        wait_until(BOUND, part, || {
            text = self.text()?;
            Ok(text.contains(part))
        })
        .with_context(|| text.clone())?;
        Ok(text)
    }

    /// What tmux knows of it.
    fn state(&self, format: &str) -> Result<String> {
        Ok(self
            .tmux(["display-message", "-p", format])?
            .trim()
            .to_owned())
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // With the node its processes go in any case.
        let _gone = self.tmux(["kill-server"]);
    }
}

#[test]
fn top_shows_what_happens_and_leaves_the_terminal_as_it_was() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let mut agent = node.agent(&exact.config(node, EVERY, "{breaker: {consecutive: 5}}"))?;
        let socket = node.dir().join("admin.sock");
        let command = format!(
            "TERM=screen-256color {} top --interval 200ms --admin-socket {}; echo ended $?; stty -a; echo told; exec sleep 1000",
            agent_binary()?.display(),
            socket.display()
        );
        let screen = Screen::run(node, &command)?;
        let before = screen.wait("nothing measured lately")?;
        ensure!(
            before.contains(">web ") && before.contains("ready · up"),
            "{before}"
        );
        let row = |text: &str| -> Vec<String> {
            let row = text.lines().find(|line| line.starts_with(">web "));
            let row = row.unwrap_or_default().split_whitespace();
            row.map(str::to_owned).collect()
        };
        wait_until(BOUND, "the rate", || {
            Ok(row(&screen.text()?).get(1).is_some_and(|rate| rate == "0"))
        })?;
        let argv = ["10.96.0.10:80", "/wait?us=5000", "3000", "every_us=10000"];
        let mut load = exact.client.spawn_python("exact_client.py", argv)?;
        let mut text = String::new();
        wait_until(BOUND, "the row to change", || {
            text = screen.text()?;
            let row = row(&text);
            let rate: f64 = row.get(1).and_then(|it| it.parse().ok()).unwrap_or(0.0);
            Ok(rate > 20.0
                && text.contains(" server ")
                && row.get(9).is_some_and(|it| it.ends_with("ms")))
        })
        .with_context(|| text.clone())?;
        ensure!(row(&text)[8] == "closed", "{text}");
        ensure!(
            text.lines().any(|line| line.matches('█').count() > 35),
            "{text}"
        );
        ensure!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        // Closer.
        screen.press("Enter")?;
        let text = screen.wait("GET /wait")?;
        ensure!(
            text.contains("round trip") && text.contains("transfer"),
            "{text}"
        );
        screen.press("Escape")?;
        screen.wait("DESTINATION")?;
        screen.press("?")?;
        screen.wait("any key closes it")?;
        screen.press("x")?;
        load.kill()?;
        // The agent goes away and comes back.
        agent.kill9()?;
        screen.wait("the agent is gone for")?;
        agent.start_again()?;
        screen.wait("ready · up")?;
        ensure!(screen.state("#{alternate_on} #{cursor_flag}")? == "1 0");
        // A signal, as from `kill` or a shell that ends.
        let shell = screen.state("#{pane_pid}")?;
        let top = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        node.spawn("pods", ["kill", "-TERM", top.trim()])?
            .finish(BOUND)?
            .success()?;
        let text = screen.wait("told")?;
        ensure!(screen.state("#{alternate_on} #{cursor_flag}")? == "0 1");
        ensure!(
            text.contains("ended 0") && text.contains(" icanon") && text.contains(" echo "),
            "{text}"
        );
        agent.terminate(BOUND)
    });
}

#[test]
fn top_says_what_to_use_where_there_is_no_terminal() {
    scenario(|node| {
        let finished = node.agent_verb(["top"])?;
        ensure!(!finished.status.success(), "{finished:?}");
        ensure!(finished.stderr.lines().count() == 1, "{finished:?}");
        ensure!(
            finished.stderr.contains("mesh-agent latency --output json"),
            "{finished:?}"
        );
        Ok(())
    });
}

#[test]
fn latency_has_colours_on_a_terminal_for_who_wants_them() {
    scenario(|node| {
        let exact = Exact::new(node)?;
        let agent = node.agent(&exact.config(node, EVERY, "{}"))?;
        exact.ask("/wait?us=5000", 10, &[])?;
        wait_measured(&agent, 10)?;
        let socket = node.dir().join("admin.sock");
        let latency = format!(
            "{} latency --admin-socket {}",
            agent_binary()?.display(),
            socket.display()
        );
        for (environment, coloured) in [("NO_COLOR=", true), ("NO_COLOR=1", false)] {
            let command = format!("{environment} {latency}; echo ended $?; exec sleep 1000");
            let screen = Screen::run(node, &command)?;
            screen.wait("ended 0")?;
            let text = screen.tmux(["capture-pane", "-p", "-e"])?;
            let server = text.contains("\u{1b}[32m█");
            ensure!(server == coloured, "{environment}: {text}");
            ensure!(text.contains("slowest: server"), "{text}");
        }
        Ok(())
    });
}
