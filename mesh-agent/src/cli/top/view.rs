//! What is known, and what the person who looks has chosen. No I/O; time is passed in.

use std::{collections::HashMap, time::Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::snapshot::Snapshot;
use crate::admin::model::Destination;

/// What is to be done after something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Draw what is known.
    Draw,
    /// Ask the agent at once.
    Ask,
    /// End.
    Quit,
}

/// What destinations are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// The most requests first.
    #[default]
    Rate,
    /// The slowest first.
    Time,
    /// The most errors first.
    Errors,
    /// By name.
    Name,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Time,
            Self::Time => Self::Errors,
            Self::Errors => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    /// As it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Time => "p99",
            Self::Errors => "errors",
            Self::Name => "name",
        }
    }
}

/// What happens to a destination in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Requests answered.
    pub all: f64,
    /// Of those, by class of status, from `1xx` on.
    pub classes: [f64; 5],
    /// Of those, by the agent itself.
    pub own: f64,
}

/// What is known and chosen.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The last answer of the agent.
    pub last: Option<Snapshot>,
    /// By destination, between the last two answers.
    pub rates: HashMap<String, Rates>,
    /// Since when the agent does not answer, and why.
    pub gone: Option<(Instant, String)>,
    /// The destination that is marked. It stays so wherever sorting moves it.
    pub selected: Option<String>,
    pub sort: Sort,
    pub is_paused: bool,
    pub shows_help: bool,
    /// Whether the selected destination is looked at closely.
    pub is_close: bool,
}

impl View {
    /// The agent answered, or did not.
    pub fn polled(&mut self, polled: Box<Result<Snapshot, String>>, now: Instant) -> Then {
        match *polled {
            Err(why) => {
                let since = self.gone.take().map_or(now, |(since, _)| since);
                self.gone = Some((since, why));
            }
            Ok(snapshot) => {
                self.gone = None;
                if !self.is_paused {
                    self.rates = self
                        .last
                        .as_ref()
                        .map_or_else(HashMap::new, |before| rates(before, &snapshot));
                    self.last = Some(snapshot);
                    self.keep_selection();
                }
            }
        }
        Then::Draw
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Then {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Then::Quit;
        }
        if self.shows_help {
            self.shows_help = false;
            return if key.code == KeyCode::Char('q') {
                Then::Quit
            } else {
                Then::Draw
            };
        }
        match key.code {
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Char('?' | 'h') => self.shows_help = true,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                if !self.is_paused {
                    return Then::Ask;
                }
            }
            KeyCode::Down | KeyCode::Char('j') => return self.select(1),
            KeyCode::Up | KeyCode::Char('k') => return self.select(-1),
            KeyCode::PageDown => return self.select(8),
            KeyCode::PageUp => return self.select(-8),
            KeyCode::Home => return self.select(isize::MIN),
            KeyCode::End => return self.select(isize::MAX),
            KeyCode::Enter if self.selected.is_some() => {
                self.is_close = !self.is_close;
                return Then::Ask;
            }
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left if self.is_close => {
                self.is_close = false;
                return Then::Ask;
            }
            _ => {}
        }
        Then::Draw
    }

    /// The destination that is looked at closely.
    pub fn detail(&self) -> Option<&str> {
        self.selected.as_deref().filter(|_| self.is_close)
    }

    /// Destinations as they are shown.
    pub fn sorted(&self) -> Vec<&Destination> {
        let Some(last) = &self.last else {
            return Vec::new();
        };
        let mut all: Vec<&Destination> = last.destinations.iter().collect();
        let key = |it: &Destination| match self.sort {
            Sort::Rate => self.rates.get(&it.name).map_or(0.0, |rates| rates.all),
            Sort::Errors => {
                let rates = self.rates.get(&it.name);
                rates.map_or(0.0, |rates| rates.classes[4])
            }
            Sort::Time => {
                let measured = last.measured(&it.name);
                let total = measured.and_then(|it| it.recent.times.get("total"));
                total.map_or(0.0, |it| it.p99)
            }
            Sort::Name => 0.0,
        };
        all.sort_by(|one, other| {
            let by_key = key(other).total_cmp(&key(one));
            by_key.then_with(|| one.name.cmp(&other.name))
        });
        all
    }

    /// Where the marked one is.
    pub fn place(&self) -> Option<usize> {
        let name = self.selected.as_ref()?;
        self.sorted().iter().position(|it| it.name == *name)
    }

    fn select(&mut self, by: isize) -> Then {
        let names: Vec<String> = self
            .sorted()
            .into_iter()
            .map(|it| it.name.clone())
            .collect();
        let place = self.place().unwrap_or(0);
        let place = place.saturating_add_signed(by);
        self.selected = names.get(place.min(names.len().saturating_sub(1))).cloned();
        if self.is_close { Then::Ask } else { Then::Draw }
    }

    /// The first one if the marked one is gone.
    fn keep_selection(&mut self) {
        if self.place().is_none() {
            self.selected = self.sorted().first().map(|it| it.name.clone());
            self.is_close = false;
        }
    }
}

/// What happened between two answers; nothing if the agent was started anew between them.
fn rates(before: &Snapshot, now: &Snapshot) -> HashMap<String, Rates> {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    if before.status.pid != now.status.pid || seconds <= 0.0 {
        return HashMap::new();
    }
    let of = |it: &Destination| {
        // One that was not there was not asked.
        let earlier = before.destinations.iter().find(|old| old.name == it.name);
        let answered = |it: &Destination, class: usize| {
            let count = it.answered.get(&format!("{class}xx"));
            count.copied().unwrap_or_default()
        };
        let own = |it: &Destination| it.own_answers.values().sum::<u64>();
        let per_second = |new: u64, old: Option<u64>| {
            // One that was forgotten meanwhile begins at zero again.
            new.saturating_sub(old.unwrap_or_default()) as f64 / seconds
        };
        let classes: [f64; 5] = std::array::from_fn(|index| {
            let class = index + 1;
            per_second(answered(it, class), earlier.map(|it| answered(it, class)))
        });
        Rates {
            all: classes.iter().sum(),
            classes,
            own: per_second(own(it), earlier.map(own)),
        }
    };
    // Where no classes are, nothing is counted.
    let all = now.destinations.iter().filter(|it| !it.answered.is_empty());
    all.map(|it| (it.name.clone(), of(it))).collect()
}
