//! What became of the requests of one pod, for each destination.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{destinations::class, http::Reason, idleness::Idleness};

/// Destinations of one pod that are told apart; requests to others count as theirs together.
const MOST: usize = 1024;
/// The name of those others.
const OTHERS: &str = "others";

/// What became of requests, by destination.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<HashMap<Arc<str>, Counted>>);

#[derive(Debug)]
struct Counted {
    outcomes: Outcomes,
    idleness: Idleness,
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Answered, by the first digit of the status (index 0 for 1xx).
    pub answered: [u64; 5],
    /// Answered by the agent itself, by the number of the reason.
    pub own_answers: [u64; Reason::ALL.len()],
}

/// What became of requests, by destination.
pub type TrafficList = Vec<(Arc<str>, Outcomes)>;

impl Traffic {
    /// A request to `destination` was answered with `status`; by the agent itself, if with a reason.
    pub fn count(&self, destination: &Arc<str>, status: u16, reason: Option<Reason>) {
        let mut counted = self.lock();
        let name = if counted.contains_key(destination) || counted.len() < MOST {
            Arc::clone(destination)
        } else {
            OTHERS.into()
        };
        let counted = counted.entry(name).or_insert_with(|| Counted {
            outcomes: Outcomes::default(),
            idleness: Idleness::new(Instant::now()),
        });
        counted.idleness.used();
        counted.outcomes.answered[class(status)] += 1;
        if let Some(reason) = reason {
            counted.outcomes.own_answers[reason.number()] += 1;
        }
    }

    /// Forgets what was not used for long.
    pub fn sweep(&self, now: Instant) {
        self.lock()
            .retain(|_, counted| !counted.idleness.is_over(now));
    }

    /// All of it.
    pub fn list(&self) -> TrafficList {
        let counted = self.lock();
        let all = counted.iter();
        all.map(|(name, counted)| (Arc::clone(name), counted.outcomes.clone()))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::idleness::IDLE, *};

    #[test]
    fn what_is_idle_is_forgotten_and_what_is_not_is_kept() {
        let traffic = Traffic::default();
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let mut now = Instant::now();
        traffic.count(&one, 200, None);
        traffic.count(&other, 503, Some(Reason::NoEndpoint));
        traffic.sweep(now);
        for _ in 0..3 {
            now += IDLE / 2;
            traffic.count(&one, 200, None);
            traffic.sweep(now);
        }
        let left = traffic.list();
        assert_eq!(left.len(), 1);
        assert_eq!((&*left[0].0, left[0].1.answered[1]), ("one", 4));
    }

    #[test]
    fn there_are_never_more_than_are_told_apart() {
        let traffic = Traffic::default();
        for number in 0..3 * MOST {
            traffic.count(&number.to_string().into(), 200, None);
        }
        let all = traffic.list();
        assert_eq!(all.len(), MOST + 1);
        let others = all.iter().find(|(name, _)| &**name == OTHERS);
        assert_eq!(others.map(|(_, it)| it.answered[1]), Some(2 * MOST as u64));
    }
}
