//! What happens while the terminal is drawn on: keys, answers of the agent, signals.

use std::{
    io,
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use ratatui::crossterm::event::{self, KeyEvent, KeyEventKind};

use super::snapshot::Snapshot;
use crate::{agent::Signals, one_line::one_line};

/// Something to react to.
#[derive(Debug)]
pub(super) enum Event {
    /// The agent answered, or did not and why.
    Polled(Box<Result<Snapshot, String>>),
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// SIGTERM or SIGINT, or the terminal is gone.
    Stop,
}

/// What happens, and a way to ask the agent at once.
#[derive(Debug)]
pub(super) struct Events {
    happened: Receiver<Event>,
    ask: Sender<Option<String>>,
}

impl Events {
    /// Starts to listen, and to ask the agent every `interval`. The threads end with the process.
    pub fn start(socket: &Path, interval: Duration) -> anyhow::Result<Self> {
        let (told, happened) = mpsc::channel();
        let (ask, asked) = mpsc::channel();
        signals(told.clone())?;
        let socket = socket.to_owned();
        let to_poller = told.clone();
        thread::Builder::new().spawn(move || poll(&socket, interval, &asked, &to_poller))?;
        thread::Builder::new().spawn(move || keys(&told))?;
        Ok(Self { happened, ask })
    }

    /// Waits for the next one.
    pub fn next(&self) -> anyhow::Result<Event> {
        self.happened.recv().context("the terminal is gone")
    }

    /// Asks the agent at once, and from now on for the requests of `destination`.
    pub fn ask(&self, destination: Option<&str>) {
        // It only ends with the process.
        let _listens = self.ask.send(destination.map(str::to_owned));
    }
}

fn signals(told: Sender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    thread::Builder::new().spawn(move || {
        runtime.block_on(signals.received());
        let _ended_already = told.send(Event::Stop);
    })?;
    Ok(())
}

fn keys(told: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event::Event::Key(key)) if key.kind == KeyEventKind::Press => Event::Key(key),
            Ok(event::Event::Resize(..)) => Event::Resized,
            Ok(_) => continue,
            Err(_) => Event::Stop,
        };
        let is_last = matches!(event, Event::Stop);
        if told.send(event).is_err() || is_last {
            return;
        }
    }
}

fn poll(socket: &Path, interval: Duration, asked: &Receiver<Option<String>>, told: &Sender<Event>) {
    let mut destination: Option<String> = None;
    loop {
        let snapshot = Snapshot::take(socket, destination.as_deref());
        let polled = Box::new(snapshot.map_err(|error| one_line(&error)));
        if told.send(Event::Polled(polled)).is_err() {
            return;
        }
        match asked.recv_timeout(interval) {
            Ok(other) => destination = other,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
