//! Watching: the configuration file, and the places where pods' network namespaces come and go.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

use crate::config::{self, Config, Loaded, Pod};

/// Look at least this often: not every filesystem tells (/proc, some network filesystems).
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to gather events before looking.
const GATHER_FOR: Duration = Duration::from_millis(10);
/// A file counts as written when it stayed the same for this long.
const SETTLED_AFTER: Duration = Duration::from_millis(50);
/// How often to look again at a file that goes on changing.
const SETTLE_TRIES: usize = 40;

/// Tells when it is worth looking again.
pub struct Watcher {
    config_path: PathBuf,
    /// The file's bytes that were last acted upon.
    seen: Option<Vec<u8>>,
    /// Whether it may be applied later as it is.
    pending: bool,
    directories: HashSet<PathBuf>,
    notifier: Option<RecommendedWatcher>,
    changes: mpsc::Receiver<()>,
}

impl Watcher {
    /// Starts with the file as it is now. Without inotify it still looks every second.
    pub fn new(config_path: &Path) -> Self {
        let (sender, changes) = mpsc::channel(1);
        let notifier = notify::recommended_watcher(move |event| {
            if tells_of_change(&event) {
                // A full channel means that a look is due anyway.
                let _due_anyway = sender.try_send(());
            }
        });
        let notifier = notifier
            .inspect_err(|error| tracing::warn!("no inotify ({error}); looking every second"))
            .ok();
        Self {
            config_path: config_path.into(),
            seen: fs::read(config_path).ok(),
            pending: false,
            directories: HashSet::new(),
            notifier,
            changes,
        }
    }

    /// Watches the directories of the configuration file and of the pods' namespaces.
    pub fn watch(&mut self, pods: &[Pod]) {
        let Some(notifier) = &mut self.notifier else {
            return;
        };
        let wanted: HashSet<PathBuf> = std::iter::once(self.config_path.as_path())
            .chain(pods.iter().map(|pod| pod.netns.as_path()))
            .filter_map(directory_of)
            .collect();
        for gone in self.directories.difference(&wanted) {
            let _gone_already = notifier.unwatch(gone);
        }
        self.directories
            .retain(|directory| wanted.contains(directory));
        for directory in wanted {
            // One that does not exist yet is tried again on the next look.
            if !self.directories.contains(&directory)
                && notifier
                    .watch(&directory, RecursiveMode::NonRecursive)
                    .is_ok()
            {
                self.directories.insert(directory);
            }
        }
    }

    /// Waits until something may have changed.
    pub async fn changed(&mut self) {
        let _looked_long_ago = tokio::time::timeout(LOOK_EVERY, self.changes.recv()).await;
        // One look for a burst of events.
        tokio::time::sleep(GATHER_FOR).await;
        while self.changes.try_recv().is_ok() {}
    }

    /// The file as it is could not be applied, for a reason that may pass.
    pub const fn try_again(&mut self) {
        self.pending = true;
    }

    /// The new configuration, if the file changed or is to be tried again; `None` if not.
    /// Takes as long as somebody writes the file; cancelling it forgets nothing.
    pub async fn read_config(&mut self, running: &Config) -> Option<anyhow::Result<Config>> {
        // Editors replace files by removing them first; what runs goes on.
        let Ok(bytes) = self.settled().await else {
            return None;
        };
        let changed = self.seen.as_ref() != Some(&bytes);
        if !changed && !self.pending {
            return None;
        }
        self.pending = false;
        let outcome = self.check(&bytes, running);
        self.seen = Some(bytes);
        if changed && let Ok(loaded) = &outcome {
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
        }
        Some(outcome.map(|loaded| loaded.config))
    }

    fn check(&self, bytes: &[u8], running: &Config) -> anyhow::Result<Loaded> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            bail!(
                "{}: the file is empty; write `pods: []` to un-enrol every pod",
                self.config_path.display()
            );
        }
        let loaded = config::parse_bytes(bytes, &self.config_path.display().to_string())?;
        let restart = config::fields_needing_restart(running, &loaded.config);
        if !restart.is_empty() {
            bail!(
                "{}: {} can only change with a restart of the agent",
                self.config_path.display(),
                restart.join(", ")
            );
        }
        Ok(loaded)
    }

    /// The file's bytes, once nobody is writing them any more.
    async fn settled(&self) -> io::Result<Vec<u8>> {
        let mut bytes = fs::read(&self.config_path)?;
        if self.seen.as_ref() == Some(&bytes) {
            return Ok(bytes);
        }
        for _ in 0..SETTLE_TRIES {
            tokio::time::sleep(SETTLED_AFTER).await;
            let now = fs::read(&self.config_path)?;
            if now == bytes {
                break;
            }
            bytes = now;
        }
        Ok(bytes)
    }
}

/// Reading tells of nothing new; the agent's own looks would wake it for the next.
fn tells_of_change(event: &notify::Result<Event>) -> bool {
    const WRITTEN: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    event.as_ref().map_or(true, |event| {
        !event.kind.is_access() || event.kind == WRITTEN
    })
}

fn directory_of(path: &Path) -> Option<PathBuf> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(".".into()),
        parent => parent.map(Path::to_path_buf),
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, RemoveKind};

    use super::*;

    fn tells(kind: EventKind) -> bool {
        tells_of_change(&Ok(Event::new(kind)))
    }

    #[test]
    fn reading_wakes_nobody() {
        for kind in [
            AccessKind::Open(AccessMode::Any),
            AccessKind::Read,
            AccessKind::Close(AccessMode::Read),
        ] {
            assert!(!tells(EventKind::Access(kind)), "{kind:?}");
        }
    }

    #[test]
    fn writing_creating_removing_and_trouble_do() {
        for kind in [
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Create(CreateKind::File),
            EventKind::Remove(RemoveKind::File),
            EventKind::Other,
        ] {
            assert!(tells(kind), "{kind:?}");
        }
        assert!(tells_of_change(&Err(notify::Error::generic("overflow"))));
    }
}
