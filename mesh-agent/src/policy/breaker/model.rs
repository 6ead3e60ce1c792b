//! The breaker against a model that remembers every call and counts anew each time: the same answers and the
//! same state after each of more than a million events.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::*;

/// A sequence of events begins anew so often.
const SEQUENCES: u64 = 600;
const EVENTS: usize = 2_000;

/// A tenth of the time windows below, so that both count the same calls.
const SLICE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
struct Known {
    at: Instant,
    failed: bool,
    slow: bool,
}

enum ModelState {
    Closed {
        known: VecDeque<Known>,
        since: Option<Instant>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        step: usize,
        asked: u64,
        let_through: Vec<(u64, Instant)>,
        ended: Vec<bool>,
    },
}

struct Model {
    state: ModelState,
    era: u32,
    /// How long it was open each time, since it last recovered for good.
    open_times: Vec<Duration>,
    closed_at: Option<Instant>,
    opened: u32,
}

impl Model {
    fn admit(&mut self, limits: &BreakerLimits, now: Instant) -> Option<(u32, bool)> {
        if let ModelState::Open { until } = self.state {
            if now < until {
                return None;
            }
            self.go_to(half_open(0));
        }
        match &mut self.state {
            ModelState::HalfOpen {
                step,
                asked,
                let_through,
                ..
            } => {
                *asked += 1;
                let share = limits.half_open.steps[*step];
                let earned = match let_through.last() {
                    None => true,
                    Some((_, last)) if now - *last >= Duration::from_secs(1) => true,
                    // Since the last one: a share of those that asked, and what was left of its credit.
                    Some(_) => credit(share, *asked, let_through) >= 1.0 - 1e-9,
                };
                earned.then(|| {
                    let_through.push((*asked, now));
                    (self.era, true)
                })
            }
            _ => Some((self.era, false)),
        }
    }

    fn record(
        &mut self,
        (era, _): (u32, bool),
        failed: bool,
        took: Duration,
        limits: &BreakerLimits,
        now: Instant,
        random: f64,
    ) {
        if era != self.era {
            return;
        }
        let slow = limits.slow.is_some_and(|it| it.threshold <= took);
        match &mut self.state {
            ModelState::Open { .. } => unreachable!("nothing of this era was let through"),
            ModelState::Closed { known, since } => {
                known.push_back(Known {
                    at: now,
                    failed,
                    slow,
                });
                if holds(known, limits, now) {
                    let begun = *since.get_or_insert(now);
                    if now - begun >= limits.sustained {
                        self.open(limits, now, random);
                    }
                } else {
                    *since = None;
                }
            }
            ModelState::HalfOpen { step, ended, .. } => {
                let step = *step;
                ended.push(failed || slow);
                let calls = limits.half_open.calls as usize;
                let bad = ended.iter().filter(|bad| **bad).count();
                let ratio = limits.failure_ratio.unwrap_or(0.5);
                let too_many = ((calls as f64 * ratio).ceil() as usize).clamp(1, calls);
                if bad >= too_many {
                    self.open(limits, now, random);
                } else if bad + calls - ended.len().min(calls) < too_many {
                    if step + 1 < limits.half_open.steps.len() {
                        self.go_to(half_open(step + 1));
                    } else {
                        self.closed_at = Some(now);
                        self.go_to(closed());
                    }
                }
            }
        }
    }

    fn open(&mut self, limits: &BreakerLimits, now: Instant, random: f64) {
        if let (Some(at), Some(last)) = (self.closed_at.take(), self.open_times.last())
            && now - at > *last
        {
            self.open_times.clear();
        }
        let mut length = limits.open.base;
        for _ in &self.open_times {
            length = (length * 2).min(limits.open.max);
        }
        let length = length.min(limits.open.max).mul_f64(0.8 + 0.4 * random);
        self.open_times.push(length);
        self.opened += 1;
        self.go_to(ModelState::Open {
            until: now + length,
        });
    }

    fn go_to(&mut self, state: ModelState) {
        self.state = state;
        self.era += 1;
    }
}

fn closed() -> ModelState {
    ModelState::Closed {
        known: VecDeque::new(),
        since: None,
    }
}

fn half_open(step: usize) -> ModelState {
    ModelState::HalfOpen {
        step,
        asked: 0,
        let_through: Vec::new(),
        ended: Vec::new(),
    }
}

/// Goes through all that asked, one by one.
fn credit(share: f64, asked: u64, let_through: &[(u64, Instant)]) -> f64 {
    let mut credit = 0.0_f64;
    let mut next = let_through.iter().map(|(number, _)| *number).peekable();
    for number in 1..=asked {
        credit += share;
        if next.next_if_eq(&number).is_some() {
            credit = (credit - 1.0).max(0.0);
        }
    }
    credit
}

fn holds(known: &VecDeque<Known>, limits: &BreakerLimits, now: Instant) -> bool {
    let in_a_row = known.iter().rev().take_while(|it| it.failed).count();
    if limits
        .consecutive
        .is_some_and(|most| in_a_row >= most as usize)
    {
        return true;
    }
    let within: Vec<&Known> = match limits.window {
        Window::Time(length) => known.iter().filter(|it| now - it.at <= length).collect(),
        Window::Calls(most) => known.iter().rev().take(most as usize).collect(),
    };
    if within.len() < limits.minimum_calls as usize {
        return false;
    }
    let all = within.len() as f64;
    let failed = within.iter().filter(|it| it.failed).count() as f64;
    let slow = within.iter().filter(|it| it.slow).count() as f64;
    limits
        .failure_ratio
        .is_some_and(|ratio| failed >= ratio * all)
        || limits.slow.is_some_and(|it| slow >= it.ratio * all)
}

fn limits(random: &mut SmallRng) -> BreakerLimits {
    let ms = Duration::from_millis;
    let mut steps: Vec<f64> = (0..random.random_range(1..4))
        .map(|_| f64::from(random.random_range(1..=100_u32)) / 100.0)
        .collect();
    steps.sort_by(f64::total_cmp);
    BreakerLimits {
        consecutive: random.random_bool(0.5).then(|| random.random_range(1..8)),
        failure_ratio: random
            .random_bool(0.6)
            .then(|| f64::from(random.random_range(1..=10_u32)) / 10.0),
        slow: random.random_bool(0.5).then(|| SlowCalls {
            threshold: ms(50),
            ratio: f64::from(random.random_range(1..=10_u32)) / 10.0,
        }),
        window: if random.random_bool(0.5) {
            Window::Time(SLICE * 10)
        } else {
            Window::Calls(random.random_range(1..60))
        },
        minimum_calls: random.random_range(1..20),
        sustained: SLICE * random.random_range(0..12),
        open: OpenFor {
            base: ms(random.random_range(1..800)),
            max: ms(random.random_range(800..4000)),
        },
        half_open: HalfOpen {
            steps: steps.into(),
            calls: random.random_range(1..8),
            timeout: None,
        },
    }
}

#[test]
fn it_does_what_the_model_does_at_each_of_a_million_events() {
    let mut random = SmallRng::seed_from_u64(0x6d65_7368);
    let mut events = 0_u64;
    let mut opened = 0;
    let mut recovered = 0;
    for sequence in 0..SEQUENCES {
        let limits = limits(&mut random);
        let mut breaker = Breaker::default();
        let mut model = Model {
            state: closed(),
            era: 0,
            open_times: Vec::new(),
            closed_at: None,
            opened: 0,
        };
        let mut under_way: Vec<(Permit, (u32, bool))> = Vec::new();
        let mut now = Instant::now();
        // How ill the destination is changes now and then.
        let mut failing = 0.0;
        for event in 0..EVENTS {
            events += 1;
            if random.random_bool(0.02) {
                failing = [0.0, 0.1, 0.5, 1.0][random.random_range(0..4)];
            }
            if random.random_bool(0.3) {
                now += SLICE * random.random_range(0..3);
            }
            let what = || format!("event {event} of sequence {sequence} with {limits:?}");
            if under_way.is_empty() || random.random_bool(0.52) {
                let real = breaker.admit(&limits, now);
                let expected = model.admit(&limits, now);
                assert_eq!(real.is_ok(), expected.is_some(), "{}", what());
                if let Err(refused) = real {
                    assert!(refused.retry_after > Duration::ZERO, "{}", what());
                }
                under_way.extend(real.ok().zip(expected));
            } else {
                let (permit, expected) =
                    under_way.swap_remove(random.random_range(0..under_way.len()));
                assert_eq!(permit.is_probe(), expected.1, "{}", what());
                // Some are given up.
                if random.random_bool(0.1) {
                    continue;
                }
                let failed = random.random_bool(failing);
                let call = if failed {
                    Call::Failed
                } else {
                    Call::Succeeded
                };
                let took = if random.random_bool(failing) {
                    Duration::from_millis(80)
                } else {
                    Duration::ZERO
                };
                let jitter = random.random();
                let change = breaker.record(permit, call, took, &limits, now, || jitter);
                model.record(expected, failed, took, &limits, now, jitter);
                recovered += u32::from(change == Some(Change::Closed));
            }
            let view = breaker.view(&limits, now);
            let same = match (&model.state, view.state) {
                (ModelState::Closed { known, .. }, State::Closed) => {
                    let row = known.iter().rev().take_while(|it| it.failed).count();
                    view.consecutive as usize == row
                }
                (ModelState::Open { until }, State::Open { until: real }) => *until == real,
                (ModelState::HalfOpen { step, .. }, State::HalfOpen { step: real }) => {
                    *step == real
                }
                _ => false,
            };
            assert!(same, "{view:?} at {}", what());
            assert_eq!(view.trips, model.opened, "{}", what());
        }
        opened += model.opened;
    }
    assert!(events >= 1_000_000, "{events}");
    // Or it would have shown nothing.
    assert!(
        opened > 5_000 && recovered > 1_000,
        "{opened} times open, {recovered} closed again"
    );
    assert!(random.next_u64() != 0);
}

#[test]
fn jitter_stays_within_a_fifth() {
    let limits = BreakerLimits {
        consecutive: Some(1),
        failure_ratio: None,
        slow: None,
        window: Window::Calls(1),
        minimum_calls: 1,
        sustained: Duration::ZERO,
        open: OpenFor {
            base: Duration::from_secs(1),
            max: Duration::from_secs(3),
        },
        half_open: HalfOpen {
            steps: [1.0].into(),
            calls: 1,
            timeout: None,
        },
    };
    let now = Instant::now();
    for (random, expected) in [(0.0, 800), (0.5, 1000), (1.0, 1200)] {
        let mut breaker = Breaker::default();
        let permit = breaker.admit(&limits, now).unwrap();
        let opened = breaker.record(permit, Call::Failed, Duration::ZERO, &limits, now, || {
            random
        });
        let expected = Duration::from_millis(expected);
        assert!(
            matches!(opened, Some(Change::Opened { open_for, .. }) if open_for.abs_diff(expected) < Duration::from_micros(1)),
            "{opened:?}"
        );
    }
}

#[test]
fn ten_thousand_calls_fit_into_four_kilobytes() {
    let mut calls = Calls::new(Window::Calls(10_000));
    let now = Instant::now();
    for call in 0..25_000_u32 {
        calls.add(call % 3 == 0, call % 5 == 0, now);
    }
    let counts = calls.counts(now);
    assert_eq!(
        (counts.all, counts.failed, counts.slow),
        (10_000, 3_334, 2_000)
    );
    assert!(
        calls.bytes() + size_of::<Breaker>() < 4 << 10,
        "{}",
        calls.bytes()
    );
}
