//! `mesh-agent top`: what the agent does, live in a terminal.
//!
//! `events` asks the agent and reads keys on threads of their own, so that neither waits for the other; `view`
//! is what is known and chosen, without I/O; `overview`, `detail` and `frame` draw it.

mod detail;
mod events;
mod frame;
mod overview;
mod snapshot;
mod view;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use self::{
    events::{Event, Events},
    view::{Then, View},
};
use super::DEFAULT_ADMIN_SOCKET;
use crate::admin::{client, model::Status};

/// Pods, destinations, rates, breakers and where time goes, live in a terminal.
#[derive(Debug, Args)]
pub struct Top {
    /// The agent's admin socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    admin_socket: PathBuf,
    /// How often the agent is asked: 100ms to 1h
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

impl Top {
    /// Draws until somebody quits.
    pub fn run(&self) -> anyhow::Result<()> {
        ensure!(
            io::stdout().is_terminal(),
            "`top` draws on a terminal, and standard output is none; for programs there is \
             `mesh-agent latency --output json`"
        );
        // One that was never there is more likely another's socket than one that comes back.
        let _running: Status = client::get(&self.admin_socket, "/status")?;
        let events = Events::start(&self.admin_socket, self.interval)?;
        // From here on a panic, too, gives the terminal back as it was.
        let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on")?;
        let ended = draw_until_the_end(&mut terminal, &events);
        ratatui::try_restore().context("the terminal could not be given back as it was")?;
        ended
    }
}

fn draw_until_the_end(
    terminal: &mut ratatui::DefaultTerminal,
    events: &Events,
) -> anyhow::Result<()> {
    let mut view = View::default();
    loop {
        terminal.draw(|frame| frame::draw(frame, &view, Instant::now()))?;
        let then = match events.next()? {
            Event::Polled(polled) => view.polled(polled, Instant::now()),
            Event::Key(key) => view.key(key),
            Event::Resized => Then::Draw,
            Event::Stop => Then::Quit,
        };
        match then {
            Then::Draw => {}
            Then::Ask => events.ask(view.detail()),
            Then::Quit => return Ok(()),
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    const ALLOWED: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_hours(1);
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if ALLOWED.contains(&interval) {
        Ok(interval)
    } else {
        Err("it is from 100ms to 1h".to_owned())
    }
}

#[cfg(test)]
mod tests;
