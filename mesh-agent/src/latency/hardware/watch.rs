//! Attending to cards while the agent runs: those that come and go, and the clocks of all.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{
    Clocks, Interface, Switched,
    links::{Changes, Links, next_of},
};

/// How often the clocks are read, well below [`STALE`](super::STALE).
const REFRESH: Duration = Duration::from_secs(1);

/// The cards, as the agent and the task that attends to them have them together.
#[derive(Clone, Debug, Default)]
pub(super) struct Cards {
    pub switched: Arc<Mutex<Switched>>,
    pub clocks: Arc<Clocks>,
}

impl Cards {
    pub fn switched(&self) -> MutexGuard<'_, Switched> {
        self.switched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is gone; does with what is there what was done at the start.
    fn follow(&self, changes: &Changes) {
        let mut switched = self.switched();
        for (index, departure) in &changes.gone {
            tracing::debug!("interface {index} is gone");
            switched.forget(*index, *departure);
            self.clocks.forget(*index);
        }
        for index in &changes.there {
            match Interface::of(*index) {
                Ok(Some(interface)) => {
                    switched.look_at(&interface);
                    self.relate(*index);
                }
                // It is gone again: the next message says so.
                Ok(None) => {}
                Err(error) => tracing::debug!("interface {index}: {error}"),
            }
        }
        if changes.are_incomplete
            && let Err(error) = self.look_at_all(&mut switched)
        {
            tracing::warn!("hardware timestamps: {error}; cards that came are used as they are");
        }
    }

    fn look_at_all(&self, switched: &mut Switched) -> io::Result<()> {
        let interfaces = Interface::all()?;
        let is_gone = |index: &u32| interfaces.iter().all(|known| known.index != *index);
        self.clocks.forget_if(is_gone);
        switched.look_at_all(&interfaces)?;
        for interface in &interfaces {
            self.relate(interface.index);
        }
        Ok(())
    }

    /// Relates the clock of a card that is on by now.
    fn relate(&self, index: u32) {
        if let Ok(Some(interface)) = Interface::of(index) {
            tracing::debug!("{interface}");
            self.clocks.add(&interface);
        }
    }
}

/// Attends to the cards for as long as it runs. Without `links` those that come are not noticed.
pub(super) async fn attend(cards: Cards, links: Option<Links>) {
    let mut watched = links.and_then(|links| links.watch().map_err(|error| warn(&error)).ok());
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changes = next_of(watched.as_ref()) => match changes {
                Ok(changes) => follow(&cards, changes).await,
                Err(error) => {
                    warn(&error);
                    watched = None;
                }
            },
            _ = ticks.tick(), if !cards.clocks.is_empty() => cards.clocks.refresh(),
        }
    }
}

/// On a thread of its own: drivers may take long to switch.
async fn follow(cards: &Cards, changes: Changes) {
    if changes == Changes::default() {
        return;
    }
    let cards = cards.clone();
    if let Err(error) = spawn_blocking(move || cards.follow(&changes)).await {
        tracing::error!("hardware timestamps: cards that come or go: {error}");
    }
}

pub(super) fn warn(error: &io::Error) {
    tracing::warn!("hardware timestamps: cards that come later are not noticed: {error}");
}
