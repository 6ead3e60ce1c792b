//! Stops asking a destination that fails, and begins again step by step.
//!
//! Closed, open and half open as in Nygard, "Release It!" (2007); shares over a sliding window and slow calls
//! as in resilience4j; growing open times as in linkerd's consecutive-failures accrual.

mod calls;
mod half_open;
#[cfg(test)]
mod model;

use std::{
    fmt,
    time::{Duration, Instant},
};

use calls::Calls;
pub use calls::Window;
use half_open::{Probes, Verdict};

/// When a breaker opens, for how long, and how it closes again.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerLimits {
    /// It opens after so many failures in a row.
    pub consecutive: Option<u32>,
    /// It opens when this share of the calls failed: above 0, up to 1.
    pub failure_ratio: Option<f64>,
    /// It opens when too many calls are slow.
    pub slow: Option<SlowCalls>,
    /// How far back calls count for the two shares.
    pub window: Window,
    /// With fewer calls the shares say nothing.
    pub minimum_calls: u32,
    /// For how long it must have been so. A call after which it is not so ends that.
    pub sustained: Duration,
    /// How long it stays open.
    pub open: OpenFor,
    /// How requests are let through again.
    pub half_open: HalfOpen,
}

/// When too many calls are slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowCalls {
    /// From when on a call is slow.
    pub threshold: Duration,
    /// Which share is too much: above 0, up to 1.
    pub ratio: f64,
}

/// How long a breaker stays open, give or take a fifth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFor {
    /// The first time; twice as long each time again.
    pub base: Duration,
    /// At most.
    pub max: Duration,
}

/// How requests are let through again.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfOpen {
    /// Growing shares of the requests, above 0 and up to 1.
    pub steps: Box<[f64]>,
    /// By how many calls each step is judged, from 1 on.
    pub calls: u32,
    /// What a call may take meanwhile.
    pub timeout: Option<Duration>,
}

/// What became of a call. One that nobody waited for says nothing, and is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It succeeded.
    Succeeded,
    /// It failed.
    Failed,
}

/// That a call may be made. Holds nothing: it may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    generation: u32,
    is_probe: bool,
}

impl Permit {
    /// Whether the call is to find out whether the destination is well again.
    pub const fn is_probe(&self) -> bool {
        self.is_probe
    }
}

/// That a call is not to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When one might be.
    pub retry_after: Duration,
}

/// Why a breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// So many failures in a row.
    Consecutive(u32),
    /// So many of so many calls failed.
    FailureRatio {
        /// That failed.
        failed: u32,
        /// Of all.
        calls: u32,
    },
    /// So many of so many calls were slow.
    SlowCalls {
        /// That were slow.
        slow: u32,
        /// Of all.
        calls: u32,
    },
    /// The destination was not well again: in this step, from 0 on.
    HalfOpenFailed {
        /// Which.
        step: usize,
    },
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(count) => write!(f, "{count} failures in a row"),
            Self::FailureRatio { failed, calls } => write!(f, "{failed} of {calls} calls failed"),
            Self::SlowCalls { slow, calls } => write!(f, "{slow} of {calls} calls were slow"),
            Self::HalfOpenFailed { step } => write!(f, "step {} of half open failed", step + 1),
        }
    }
}

/// What a call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is open now.
    Opened {
        /// Why.
        why: Trip,
        /// For how long.
        open_for: Duration,
    },
    /// It is half open, and the next step has begun: its number, from 0 on.
    StepPassed {
        /// The one that was passed.
        step: usize,
    },
    /// It is closed now.
    Closed,
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It lets calls through.
    Closed,
    /// It lets none through.
    Open {
        /// Until then.
        until: Instant,
    },
    /// It lets some through.
    HalfOpen {
        /// In this step, from 0 on.
        step: usize,
    },
}

/// All that there is to see of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// What it does.
    pub state: State,
    /// Calls that count now.
    pub calls: u32,
    /// Of those, that failed.
    pub failed: u32,
    /// Of those, that were slow.
    pub slow: u32,
    /// Failures in a row.
    pub consecutive: u32,
    /// Why it opened last.
    pub why: Option<Trip>,
    /// When it opened last.
    pub opened_at: Option<Instant>,
    /// How often it opened.
    pub trips: u32,
    /// While it is open: when it lets a call through, to see.
    pub probe_in: Option<Duration>,
}

/// The breaker of a destination. Its limits are passed with each call, so that they may change.
#[derive(Debug, Default)]
pub struct Breaker {
    phase: Phase,
    /// Results of calls that were let through before the last change say nothing any more.
    generation: u32,
    calls: Option<Calls>,
    consecutive: u32,
    /// Since when there is a reason to open.
    reason_since: Option<Instant>,
    /// How often it opened without having recovered.
    growth: u32,
    open_for: Duration,
    closed_at: Option<Instant>,
    why: Option<Trip>,
    opened_at: Option<Instant>,
    trips: u32,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        step: usize,
        probes: Probes,
    },
}

/// Jitter of open times: so many parts of 1 each way.
const JITTER: f64 = 0.2;

impl Breaker {
    /// Whether a call may be made.
    pub fn admit(&mut self, limits: &BreakerLimits, now: Instant) -> Result<Permit, Refused> {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(Refused {
                    retry_after: until - now,
                });
            }
            self.go_to(Phase::HalfOpen {
                step: 0,
                probes: Probes::default(),
            });
        }
        let mut is_probe = false;
        if let Phase::HalfOpen { step, probes } = &mut self.phase {
            // With new limits there may be fewer steps.
            let share = limits.half_open.steps.get(*step).copied().unwrap_or(1.0);
            probes.admit(share, now)?;
            is_probe = true;
        }
        Ok(Permit {
            generation: self.generation,
            is_probe,
        })
    }

    /// A call has ended after `took`. `random` gives a number uniform in 0..1. Says what that changed.
    pub fn record(
        &mut self,
        permit: Permit,
        call: Call,
        took: Duration,
        limits: &BreakerLimits,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Option<Change> {
        if permit.generation != self.generation {
            return None;
        }
        let is_failure = call == Call::Failed;
        let is_slow = limits.slow.is_some_and(|slow| took >= slow.threshold);
        match &mut self.phase {
            Phase::Closed => {
                self.count(is_failure, is_slow, limits, now);
                let reason = self.reason(limits, now);
                let Some(reason) = reason else {
                    self.reason_since = None;
                    return None;
                };
                let since = *self.reason_since.get_or_insert(now);
                let has_lasted = now.saturating_duration_since(since) >= limits.sustained;
                has_lasted.then(|| self.open(reason, limits, now, random()))
            }
            Phase::HalfOpen { step, probes } => {
                let step = *step;
                match probes.record(is_failure || is_slow, limits) {
                    Verdict::None => None,
                    Verdict::Failed => {
                        Some(self.open(Trip::HalfOpenFailed { step }, limits, now, random()))
                    }
                    Verdict::Passed if step + 1 < limits.half_open.steps.len() => {
                        self.go_to(Phase::HalfOpen {
                            step: step + 1,
                            probes: Probes::default(),
                        });
                        Some(Change::StepPassed { step })
                    }
                    Verdict::Passed => {
                        self.closed_at = Some(now);
                        self.go_to(Phase::Closed);
                        Some(Change::Closed)
                    }
                }
            }
            // Nothing is let through.
            Phase::Open { .. } => None,
        }
    }

    /// All that there is to see.
    pub fn view(&mut self, limits: &BreakerLimits, now: Instant) -> View {
        let counts = self.calls(limits).counts(now);
        View {
            state: match self.phase {
                Phase::Closed => State::Closed,
                Phase::Open { until } => State::Open { until },
                Phase::HalfOpen { step, .. } => State::HalfOpen { step },
            },
            calls: counts.all,
            failed: counts.failed,
            slow: counts.slow,
            consecutive: self.consecutive,
            why: self.why,
            opened_at: self.opened_at,
            trips: self.trips,
            probe_in: match self.phase {
                Phase::Open { until } => Some(until.saturating_duration_since(now)),
                _ => None,
            },
        }
    }

    /// What it takes beside itself.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.calls.as_ref().map_or(0, Calls::bytes)
    }

    fn calls(&mut self, limits: &BreakerLimits) -> &mut Calls {
        if self
            .calls
            .as_ref()
            .is_none_or(|it| it.window() != limits.window)
        {
            self.calls = None;
        }
        self.calls.get_or_insert_with(|| Calls::new(limits.window))
    }

    fn count(&mut self, is_failure: bool, is_slow: bool, limits: &BreakerLimits, now: Instant) {
        self.consecutive = if is_failure {
            self.consecutive.saturating_add(1)
        } else {
            0
        };
        if limits.failure_ratio.is_some() || limits.slow.is_some() {
            self.calls(limits).add(is_failure, is_slow, now);
        }
    }

    /// Why it should open, if it should.
    fn reason(&mut self, limits: &BreakerLimits, now: Instant) -> Option<Trip> {
        if limits
            .consecutive
            .is_some_and(|most| self.consecutive >= most)
        {
            return Some(Trip::Consecutive(self.consecutive));
        }
        if limits.failure_ratio.is_none() && limits.slow.is_none() {
            return None;
        }
        let minimum = limits.minimum_calls;
        let counts = self.calls(limits).counts(now);
        if counts.all < minimum.max(1) {
            return None;
        }
        let calls = counts.all;
        let is_reached = |count: u32, ratio: f64| f64::from(count) >= ratio * f64::from(calls);
        if limits
            .failure_ratio
            .is_some_and(|ratio| is_reached(counts.failed, ratio))
        {
            let failed = counts.failed;
            return Some(Trip::FailureRatio { failed, calls });
        }
        if limits
            .slow
            .is_some_and(|slow| is_reached(counts.slow, slow.ratio))
        {
            let slow = counts.slow;
            return Some(Trip::SlowCalls { slow, calls });
        }
        None
    }

    fn open(&mut self, why: Trip, limits: &BreakerLimits, now: Instant, random: f64) -> Change {
        let closed_for = self.closed_at.map(|at| now.saturating_duration_since(at));
        if closed_for.is_some_and(|closed_for| closed_for > self.open_for) {
            self.growth = 0;
        }
        let times = 1_u32.checked_shl(self.growth).unwrap_or(u32::MAX);
        let open_for = limits.open.base.saturating_mul(times).min(limits.open.max);
        let open_for = open_for.mul_f64(1.0 - JITTER + 2.0 * JITTER * random);
        self.growth = self.growth.saturating_add(1);
        self.open_for = open_for;
        self.closed_at = None;
        self.why = Some(why);
        self.opened_at = Some(now);
        self.trips = self.trips.saturating_add(1);
        self.go_to(Phase::Open {
            until: now + open_for,
        });
        Change::Opened { why, open_for }
    }

    fn go_to(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation = self.generation.wrapping_add(1);
        self.consecutive = 0;
        self.reason_since = None;
        self.calls = None;
    }
}
