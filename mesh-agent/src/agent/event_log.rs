//! The kernel half's events in the log: the first of a kind in a pod at once, then a line a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    kernel::{KernelEvent, KernelEvents},
    pods::PodSet,
};

/// At most one line about the same thing within this.
const PERIOD: Duration = Duration::from_secs(1);

/// Logs events as they come, for ever.
pub async fn log_events(events: KernelEvents, pods: Arc<PodSet>) {
    let recent = Mutex::new(Recent::default());
    let lock =
        || -> MutexGuard<'_, Recent> { recent.lock().unwrap_or_else(PoisonError::into_inner) };
    let log = |line: Line| warn(&line, &pods);
    let gathered = async {
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            let due = lock().due(Instant::now());
            due.into_iter().for_each(log);
        }
    };
    let at_once = events.run(|event| {
        let line = lock().note(event, Instant::now());
        line.into_iter().for_each(log);
    });
    tokio::join!(at_once, gathered);
}

fn warn(line: &Line, pods: &PodSet) {
    let Line { event, count } = line;
    let pod = pods
        .name_of(event.netns_cookie)
        .unwrap_or_else(|| format!("with netns cookie {}", event.netns_cookie));
    let (process, destination) = (event.process, event.destination);
    let description = event.description();
    if *count == 1 {
        tracing::warn!("pod {pod}: process {process} connecting to {destination}: {description}");
    } else {
        tracing::warn!(
            "pod {pod}: {count} more connects, the last by process {process} to {destination}: \
             {description}"
        );
    }
}

/// What is to be said: how many events, and the last of them.
#[derive(Clone, Copy, Debug)]
struct Line {
    event: KernelEvent,
    count: u64,
}

/// What was said lately, by pod and kind.
#[derive(Debug, Default)]
struct Recent(HashMap<(u64, u32), Entry>);

#[derive(Debug)]
struct Entry {
    said_at: Instant,
    /// Events since then.
    unsaid: Option<Line>,
}

impl Recent {
    /// Takes note of an event; gives the line if it is the first of its kind for a while.
    fn note(&mut self, event: KernelEvent, now: Instant) -> Option<Line> {
        let key = (event.netns_cookie, event.kind as u32);
        if let Some(entry) = self.0.get_mut(&key) {
            let count = 1 + entry.unsaid.map_or(0, |line| line.count);
            entry.unsaid = Some(Line { event, count });
            return None;
        }
        let entry = Entry {
            said_at: now,
            unsaid: None,
        };
        self.0.insert(key, entry);
        Some(Line { event, count: 1 })
    }

    /// Lines whose time has come. What did not happen again is forgotten.
    fn due(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        self.0.retain(|_, entry| {
            if now.duration_since(entry.said_at) < PERIOD {
                return true;
            }
            entry.said_at = now;
            let line = entry.unsaid.take();
            lines.extend(line);
            line.is_some()
        });
        lines
    }
}

#[cfg(test)]
mod tests {
    use mesh_common::EventKind;

    use super::*;

    fn event(netns_cookie: u64, kind: EventKind, process: u32) -> KernelEvent {
        KernelEvent {
            kind,
            netns_cookie,
            destination: ([10, 0, 0, 1], 80).into(),
            process,
        }
    }

    #[test]
    fn the_first_of_each_kind_and_pod_is_said_at_once() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for (cookie, kind) in [
            (1, EventKind::Refused),
            (2, EventKind::Refused),
            (1, EventKind::MapFull),
        ] {
            let line = recent.note(event(cookie, kind, 7), now).unwrap();
            assert_eq!(line.count, 1);
            assert!(recent.note(event(cookie, kind, 8), now).is_none());
        }
    }

    #[test]
    fn the_others_are_counted_and_none_is_lost() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let (mut lines, mut said) = (0, 0);
        // 1000 events a second for 5 seconds, looked after four times a second.
        for millisecond in 0..5000 {
            let now = start + Duration::from_millis(millisecond);
            let mut due: Vec<Line> = recent
                .note(event(1, EventKind::FailedOpen, 7), now)
                .into_iter()
                .collect();
            if millisecond % 250 == 0 {
                due.extend(recent.due(now));
            }
            lines += due.len();
            said += due.iter().map(|line| line.count).sum::<u64>();
        }
        assert!(lines <= 6, "{lines} lines in 5 seconds");
        let rest = recent.due(start + Duration::from_secs(6));
        assert_eq!(said + rest[0].count, 5000);
        assert!(recent.due(start + Duration::from_secs(8)).is_empty());
        assert!(recent.0.is_empty());
    }
}
