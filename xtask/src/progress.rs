//! Runs one long command: a spinner with its last line on a terminal, plain lines elsewhere, and
//! the whole output in a log file that a failure names.

use crate::{interrupt, workspace};
use anyhow::{Context, Result};
use console::{Term, style};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// What of a command's output goes to the terminal while it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Only the last line, next to the spinner.
    LastLine,
    /// Every line.
    Everything,
}

/// A command and how to show it.
pub struct Step<'a> {
    /// What it does, as the user reads it.
    pub label: &'a str,
    /// The log's file name without directory and extension.
    pub log: &'a str,
    /// What goes to the terminal.
    pub show: Show,
    /// It is ended when it takes longer than this.
    pub limit: Duration,
}

/// How a command ended, when it ran but did not succeed.
#[derive(Debug)]
pub struct Failure {
    what: String,
    /// Its whole output.
    pub output: String,
    log: PathBuf,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; its output is in {}", self.what, self.log.display())
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The last `count` lines of the output.
    pub fn tail(&self, count: usize) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// Runs the command to its end. The error is a [`Failure`] when the command itself failed.
pub fn run(step: &Step<'_>, mut command: Command) -> Result<Duration> {
    let log = workspace::log_file(step.log)?;
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot copy a pipe")?)
        .stderr(writer);
    let started = Instant::now();
    let mut view = View::start(step);
    let mut running = interrupt::spawn(&mut command)?;
    // The pipe's writing end in our hands would keep its end from ever coming.
    drop(command);
    let mut log_writer =
        File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let lines = read_lines(reader);
    let mut output = String::new();
    let mut ended = None;
    let what = loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                let plain = console::strip_ansi_codes(&line);
                writeln!(log_writer, "{plain}").context("cannot write the log")?;
                output.push_str(&plain);
                output.push('\n');
                view.line(&line);
            }
            // Something it left running may hold the pipe open: its own end counts as well.
            Err(RecvTimeoutError::Timeout) => ended = running.poll()?,
            Err(RecvTimeoutError::Disconnected) => ended = running.wait(step.limit)?,
        }
        view.tick(started.elapsed());
        match ended {
            Some(status) if status.success() => {
                view.finish(Ok(()), started.elapsed());
                return Ok(started.elapsed());
            }
            Some(status) => break format!("{} failed ({status})", step.label),
            None if started.elapsed() > step.limit => {
                break format!("{} took longer than {:?}", step.label, step.limit);
            }
            None => {}
        }
    };
    drop(running);
    view.finish(Err(()), started.elapsed());
    Err(Failure { what, output, log }.into())
}

fn read_lines(reader: io::PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// What the user sees of one step.
struct View<'a> {
    step: &'a Step<'a>,
    spinner: Option<ProgressBar>,
    last_line: String,
    /// Without a terminal: when the next sign of life is due.
    next_report: Duration,
}

/// Without a terminal a long step says this often that it is alive.
const REPORT_EVERY: Duration = Duration::from_secs(20);

impl<'a> View<'a> {
    fn start(step: &'a Step<'a>) -> Self {
        let spinner = Term::stderr().is_term().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(step.label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if spinner.is_none() {
            println!("· {} …", step.label);
        }
        Self {
            step,
            spinner,
            last_line: String::new(),
            next_report: REPORT_EVERY,
        }
    }

    fn line(&mut self, line: &str) {
        match (&self.spinner, self.step.show) {
            (Some(bar), Show::Everything) => bar.suspend(|| println!("{line}")),
            (None, Show::Everything) => println!("{line}"),
            (Some(bar), Show::LastLine) => {
                bar.set_message(console::strip_ansi_codes(line).trim().to_owned());
            }
            (None, Show::LastLine) => {}
        }
        line.trim().clone_into(&mut self.last_line);
    }

    fn tick(&mut self, elapsed: Duration) {
        if self.spinner.is_none() && elapsed >= self.next_report {
            println!(
                "  {} … {}s: {}",
                self.step.label,
                elapsed.as_secs(),
                self.last_line
            );
            self.next_report = elapsed + REPORT_EVERY;
        }
    }

    fn finish(self, outcome: Result<(), ()>, elapsed: Duration) {
        if let Some(bar) = self.spinner {
            bar.finish_and_clear();
        }
        let mark = match outcome {
            Ok(()) => style("✓").green(),
            Err(()) => style("✗").red().bold(),
        };
        println!("{mark} {} ({:.1}s)", self.step.label, elapsed.as_secs_f64());
    }
}
