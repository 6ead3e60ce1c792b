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
    /// What share of its requests it is to get by now, from 0 to 1: less than 1 in slow start.
    fn warmth(&self) -> f64 {
        1.0
    }
    /// Whether it is near.
    fn is_near(&self) -> bool {
        true
    }
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

/// How many times over near endpoints can take their own share of requests: as long as 1 / 1.4 of them
/// are healthy, no request goes far (Envoy's overprovisioning factor).
const SPARE: f64 = 1.4;

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
    /// Healthy endpoints that were not tried come first; then healthy ones. Of the former, those that
    /// are near come first, as long as enough of them are healthy, and those in slow start get less than
    /// their share. In panic, when too few are healthy, each counts as healthy.
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
        // The same for the same key.
        let seed = match (&self.maglev, key) {
            (Some(_), Some(key)) => key,
            _ => random(),
        };
        let near = is_near(endpoints, &is_healthy, seed);
        let is_in_reach = |index: usize| near.is_none_or(|near| endpoints[index].is_near() == near);
        let is_warm = |index: usize| {
            let warmth = endpoints[index].warmth();
            warmth >= 1.0 || share_of(seed, index) < warmth
        };
        let all = 0..endpoints.len();
        let wanted = |index: usize| is_fresh(index) && is_in_reach(index) && is_warm(index);
        let second = |index: usize| is_fresh(index) && is_in_reach(index);
        if all.clone().any(wanted) {
            self.pick_among(endpoints, wanted, key, now, &mut random)
        } else if all.clone().any(second) {
            self.pick_among(endpoints, second, key, now, &mut random)
        } else if all.clone().any(is_fresh) {
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

/// Whether this request is to stay near or go far; `None` when that is no question.
fn is_near<E: Endpoint>(
    endpoints: &[E],
    is_healthy: &impl Fn(usize) -> bool,
    seed: u64,
) -> Option<bool> {
    let all = endpoints.iter().filter(|it| it.is_near()).count();
    if all == 0 || all == endpoints.len() {
        return None;
    }
    let near = endpoints.iter().enumerate();
    let near = near.filter(|(index, it)| it.is_near() && is_healthy(*index));
    let share = near.count() as f64 / all as f64 * SPARE;
    Some(share >= 1.0 || share_of(seed, endpoints.len()) < share)
}

/// A number from 0 to 1, the same for the same seed and index.
fn share_of(seed: u64, index: usize) -> f64 {
    // The finalizer of splitmix64.
    let mut mixed = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
