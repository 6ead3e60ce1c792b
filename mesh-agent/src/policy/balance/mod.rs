//! Picks the endpoint for a try.

mod load;
mod maglev;
mod schedule;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

pub use load::EndpointLoad;
pub use maglev::{Maglev, hash};
pub use schedule::Schedule;

/// How endpoints are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// The one with fewer requests under way, of two at random ("power of two choices").
    LeastRequest,
    /// The one where a request costs less, of two at random: response time times requests under way.
    #[default]
    PeakEwma,
    /// The same for the same key.
    ConsistentHash,
}

/// What consistent hashing goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Source,
    /// The value of this header, in lower case.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
}

impl HashKey {
    /// Reads it as the configuration spells it.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "source" {
            return Some(Self::Source);
        }
        let (kind, name) = text.split_once(':')?;
        let is_name = !name.is_empty() && name.bytes().all(super::detection::is_token);
        match kind {
            "header" if is_name => Some(Self::Header(name.to_ascii_lowercase())),
            "cookie" if is_name => Some(Self::Cookie(name.to_owned())),
            _ => None,
        }
    }
}

/// What picking asks of endpoints.
pub trait Endpoint {
    /// Its load.
    fn load(&self) -> &EndpointLoad;
    /// Whether it may be picked, unless too many may not.
    fn is_healthy(&self) -> bool;
    /// Whether this request has been there already.
    fn was_tried(&self) -> bool;
}

/// Picks among the endpoints of one destination.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Algorithm,
    schedule: Schedule,
    maglev: Option<Maglev>,
    turn: AtomicUsize,
    count: usize,
    /// When a smaller share than this is healthy, health is not looked at.
    panic_threshold: f64,
}

/// How often an endpoint that may be picked is sought by chance before they are all looked at.
const CHANCES: usize = 4;

impl Balancer {
    /// Picks among endpoints with these names and weights, in this order.
    pub fn new(algorithm: Algorithm, endpoints: &[(&[u8], u32)], panic_threshold: f64) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| *weight).collect();
        let is_hash = algorithm == Algorithm::ConsistentHash;
        Self {
            algorithm,
            schedule: Schedule::of(&weights),
            maglev: is_hash.then(|| Maglev::of(endpoints)),
            turn: AtomicUsize::new(0),
            count: endpoints.len(),
            panic_threshold,
        }
    }

    /// The index of the endpoint to use. `key` is what consistent hashing goes by; `random` gives
    /// uniform numbers. `None` only without endpoints.
    ///
    /// Healthy endpoints that were not tried come first; then healthy ones. In panic, when too few are
    /// healthy, each counts as healthy.
    pub fn pick<E: Endpoint>(
        &self,
        endpoints: &[E],
        key: Option<u64>,
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) -> Option<usize> {
        debug_assert_eq!(endpoints.len(), self.count);
        match endpoints {
            [] => return None,
            [_only] => return Some(0),
            _ => {}
        }
        let is_panic = self.is_panic(endpoints);
        let is_healthy = |index: usize| is_panic || endpoints[index].is_healthy();
        let is_fresh = |index: usize| is_healthy(index) && !endpoints[index].was_tried();
        if (0..endpoints.len()).any(is_fresh) {
            self.pick_among(endpoints, is_fresh, key, now, &mut random)
        } else {
            self.pick_among(endpoints, is_healthy, key, now, &mut random)
        }
    }

    fn is_panic<E: Endpoint>(&self, endpoints: &[E]) -> bool {
        let healthy = endpoints
            .iter()
            .filter(|endpoint| endpoint.is_healthy())
            .count();
        healthy == 0 || (healthy as f64) < endpoints.len() as f64 * self.panic_threshold
    }

    /// At least one `may` be picked.
    fn pick_among<E: Endpoint>(
        &self,
        endpoints: &[E],
        may: impl Fn(usize) -> bool,
        key: Option<u64>,
        now: Instant,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        match (self.algorithm, &self.maglev, key) {
            (Algorithm::ConsistentHash, Some(maglev), Some(key)) => {
                // The table holds every endpoint; the next place is as good as random.
                (0..endpoints.len() * 16)
                    .filter_map(|attempt| maglev.at(key, attempt))
                    .find(|index| may(*index))
                    .or_else(|| (0..endpoints.len()).find(|index| may(*index)))
            }
            (Algorithm::RoundRobin, ..) => self.in_turn(endpoints.len(), may),
            (Algorithm::Random | Algorithm::ConsistentHash, ..) => self.by_chance(&may, random),
            (Algorithm::LeastRequest, ..) => self.better_of_two(&may, random, |index| {
                f64::from(endpoints[index].load().pending())
            }),
            (Algorithm::PeakEwma, ..) => {
                self.better_of_two(&may, random, |index| endpoints[index].load().cost(now))
            }
        }
    }

    fn in_turn(&self, count: usize, may: impl Fn(usize) -> bool) -> Option<usize> {
        // A whole round of the schedule has everyone.
        (0..count * 2)
            .filter_map(|_| self.schedule.at(self.turn.fetch_add(1, Ordering::Relaxed)))
            .find(|index| may(*index))
            .or_else(|| (0..count).find(|index| may(*index)))
    }

    fn by_chance(
        &self,
        may: &impl Fn(usize) -> bool,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        let lucky = (0..CHANCES)
            .filter_map(|_| self.schedule.at(random() as usize))
            .find(|index| may(*index));
        lucky.or_else(|| {
            let candidates: Vec<usize> = (0..self.count).filter(|index| may(*index)).collect();
            let chosen = random() as usize % candidates.len().max(1);
            candidates.get(chosen).copied()
        })
    }

    fn better_of_two(
        &self,
        may: &impl Fn(usize) -> bool,
        random: &mut impl FnMut() -> u64,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let one = self.by_chance(may, random)?;
        let other = self.by_chance(&|index| index != one && may(index), random);
        Some(match other {
            Some(other) if cost(other) < cost(one) => other,
            _ => one,
        })
    }
}

#[cfg(test)]
mod tests;
