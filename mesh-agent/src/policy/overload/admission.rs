//! Which requests are let in: DAGOR, "Overload Control for Scaling WeChat Microservices", SoCC 2018.
//!
//! How long requests waited in the queue says whether more are let in than can be served. Then the level
//! up to which priorities are admitted is lowered, by as many as came with those in the last window.

use std::time::{Duration, Instant};

use crate::policy::priority::Priority;

/// The level is set anew after so long
const WINDOW: Duration = Duration::from_secs(1);
/// or after so many that were let in,
const ENOUGH: u32 = 2000;
/// but not before a queue has had time to grow.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// When nothing came for so long, what was before says nothing: all are let in again.
const IDLE: Duration = Duration::from_secs(10);
/// So many that come tell enough of the priorities of all in a window.
const MOST_ARRIVALS: usize = 2000;
/// In overload at least so many fewer are let in than in the last window: more in proportion to the wait,
const LEAST_CUT: f64 = 0.05;
/// up to so many times more, for what waits has to be served as well.
const MOST_WAIT: f64 = 4.0;
/// At most so many fewer: one stall does not shut everybody out.
const MOST_CUT: f64 = 0.5;
/// Otherwise so many more are.
const RAISE: f64 = 0.01;
/// If it waits for less than this share of the target, nothing is near its limit: the raise begins with more
/// and doubles with each window, or it would take minutes to let all in again.
const CALM: f64 = 0.25;
/// The first raise of those.
const CALM_RAISE: f64 = 0.04;
/// If more than this share of those let in is not served, it is overload whatever the others waited: the
/// queue keeps waits short by giving up on requests. A few it gives up on without overload, when many come
/// at the same time.
const MOST_EXPIRED: f64 = 0.1;
/// What comes before it is always admitted: the critical ones.
const FLOOR: u16 = Priority::LEAST_USER as u16 + 1;
/// After every priority.
const ALL: Level = Level {
    ordinal: (Priority::LEAST_BUSINESS as u16 + 1) * FLOOR,
    share: 0.0,
};

/// When it is overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// When requests wait for longer on average. The paper has 20 ms.
    pub wait_target: Duration,
}

/// Decides by priority which requests are let in.
///
/// Unlike in the paper, requests of one priority may also be let in in part: where requests do not say
/// whose they are, most have the same one. It keeps the priorities of one window, 8 KB at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    level: Level,
    /// Of this window.
    arrivals: Vec<Arrival>,
    waits: Waits,
    /// When this window began, or, after a cut, will.
    start: Option<Instant>,
    /// The next raise.
    raise: f64,
    /// Adds up the share of those just at the level.
    credit: f64,
    last: Waits,
    is_overloaded: bool,
}

/// Those before `ordinal` are admitted, and this share of those that have it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Level {
    ordinal: u16,
    share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arrival {
    ordinal: u16,
    /// For how many it stands.
    weight: u16,
}

/// How those fared that were let in or left the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Waits {
    total: Duration,
    admitted: u32,
    served: u32,
    expired: u32,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdmissionView {
    /// As [`Admission::level`].
    pub level: u16,
    /// Whether the last window was one of overload.
    pub is_overloaded: bool,
    /// How long requests waited on average in the last window.
    pub mean_wait: Duration,
    /// Which share of those let in was not served then, from 0 to 1.
    pub expired: f64,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            level: ALL,
            arrivals: Vec::new(),
            waits: Waits::default(),
            start: None,
            raise: RAISE,
            credit: 0.0,
            last: Waits::default(),
            is_overloaded: false,
        }
    }
}

impl Admission {
    /// One that admits all so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to let a request in. Each that comes is to be asked for, critical ones too. It stands for so
    /// many that its caller would have sent ([`Answer::Probe`](super::Answer::Probe)), itself among them:
    /// normally 1.
    pub fn admits(
        &mut self,
        priority: Priority,
        stands_for: u16,
        limits: &AdmissionLimits,
        now: Instant,
    ) -> bool {
        self.end_window(limits, now);
        let ordinal = priority.ordinal();
        let is_admitted = self.is_within_level(ordinal);
        if self.is_counting(now) {
            if self.arrivals.len() < MOST_ARRIVALS {
                self.arrivals.push(Arrival {
                    ordinal,
                    weight: stands_for.max(1),
                });
            }
            let admitted = &mut self.waits.admitted;
            *admitted = admitted.saturating_add(u32::from(is_admitted));
        }
        is_admitted
    }

    /// One that was let in is served now, after so long in the queue: also if that is zero.
    pub fn waited(&mut self, wait: Duration, now: Instant) {
        if self.is_counting(now) {
            self.waits.total = self.waits.total.saturating_add(wait);
            self.waits.served = self.waits.served.saturating_add(1);
        }
    }

    /// One that was let in is not served: its time was up after so long in the queue, or there was no room.
    /// Not for one whose caller went away.
    pub fn expired(&mut self, wait: Duration, now: Instant) {
        if self.is_counting(now) {
            self.waits.total = self.waits.total.saturating_add(wait);
            self.waits.expired = self.waits.expired.saturating_add(1);
        }
    }

    /// The last [ordinal](Priority::ordinal) that is admitted, if only in part; [`u16::MAX`] if all are. To
    /// be told to callers.
    pub fn level(&self) -> u16 {
        match self.level {
            ALL => u16::MAX,
            Level { ordinal, share } if share > 0.0 => ordinal,
            Level { ordinal, .. } => ordinal - 1,
        }
    }

    /// To be shown to people.
    pub fn view(&self) -> AdmissionView {
        AdmissionView {
            level: self.level(),
            is_overloaded: self.is_overloaded,
            mean_wait: self.last.mean(),
            expired: self.last.expired(),
        }
    }

    fn is_within_level(&mut self, ordinal: u16) -> bool {
        if ordinal != self.level.ordinal {
            return ordinal < self.level.ordinal;
        }
        self.credit += self.level.share;
        let is_admitted = self.credit >= 1.0;
        self.credit -= f64::from(u8::from(is_admitted));
        is_admitted
    }

    fn is_counting(&self, now: Instant) -> bool {
        self.start.is_none_or(|start| start <= now)
    }

    fn end_window(&mut self, limits: &AdmissionLimits, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let passed = now.saturating_duration_since(start);
        let is_full = self.waits.admitted >= ENOUGH && passed >= SHORTEST_WINDOW;
        if passed < WINDOW && !is_full {
            return;
        }
        self.last = std::mem::take(&mut self.waits);
        self.start = Some(now);
        self.arrivals.sort_unstable_by_key(|it| it.ordinal);
        let mean = self.last.mean();
        let (wait, target) = (mean.as_secs_f64(), limits.wait_target.as_secs_f64());
        self.is_overloaded = wait > target || self.last.expired() > MOST_EXPIRED;
        if passed >= IDLE {
            self.is_overloaded = false;
            self.level = ALL;
        } else if self.is_overloaded {
            self.raise = RAISE;
            // If fewer come in than go out, it is over as soon as those that wait are served.
            let excess = self.last.excess();
            if excess > -LEAST_CUT {
                let cut = excess.max(LEAST_CUT * (wait / target).min(MOST_WAIT));
                self.lower(cut.clamp(LEAST_CUT, MOST_CUT));
                // Those in the queue were let in at the old level: they say nothing of the new one.
                self.start = now.checked_add(mean.min(WINDOW));
            }
        } else {
            self.raise_level(wait <= target * CALM && self.last.expired == 0);
        }
        self.arrivals.clear();
    }

    fn lower(&mut self, cut: f64) {
        if !self.arrivals.is_empty() {
            self.level = self.level_for(self.admitted() * (1.0 - cut));
        }
    }

    fn raise_level(&mut self, is_calm: bool) {
        self.raise = if is_calm {
            self.raise.max(CALM_RAISE)
        } else {
            RAISE
        };
        let admitted = self.admitted();
        let more = admitted * (1.0 + self.raise);
        self.level = self.level_for(more.max(admitted + 1.0));
        self.raise = (self.raise * 2.0).min(1.0);
    }

    /// How many of this window's arrivals the level admits.
    fn admitted(&self) -> f64 {
        let admitted = |it: &Arrival| {
            let weight = f64::from(it.weight);
            match it.ordinal.cmp(&self.level.ordinal) {
                std::cmp::Ordering::Less => weight,
                std::cmp::Ordering::Equal => weight * self.level.share,
                std::cmp::Ordering::Greater => 0.0,
            }
        };
        self.arrivals.iter().map(admitted).sum()
    }

    /// Which level admits so many of this window's arrivals, which are in order.
    fn level_for(&self, count: f64) -> Level {
        let mut left = count;
        for group in self.arrivals.chunk_by(|a, b| a.ordinal == b.ordinal) {
            let ordinal = group[0].ordinal;
            let weight: f64 = group.iter().map(|it| f64::from(it.weight)).sum();
            if weight > left {
                let share = left / weight;
                return if ordinal < FLOOR {
                    Level {
                        ordinal: FLOOR,
                        share: 0.0,
                    }
                } else {
                    Level { ordinal, share }
                };
            }
            left -= weight;
        }
        ALL
    }
}

impl Waits {
    fn count(&self) -> u32 {
        self.served.saturating_add(self.expired)
    }

    fn mean(&self) -> Duration {
        self.total
            .checked_div(self.count())
            .unwrap_or(Duration::ZERO)
    }

    /// The share of those let in that was too many: below 0 if more could have been let in.
    fn excess(&self) -> f64 {
        1.0 - f64::from(self.served) / f64::from(self.admitted.max(1))
    }

    fn expired(&self) -> f64 {
        f64::from(self.expired) / f64::from(self.count().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_below_16_kib() {
        let limits = AdmissionLimits {
            wait_target: Duration::from_millis(20),
        };
        let mut admission = Admission::new();
        let now = Instant::now();
        for _ in 0..100_000 {
            admission.admits(Priority::NORMAL, 1, &limits, now);
        }
        let arrivals = admission.arrivals.capacity() * size_of::<Arrival>();
        assert!(arrivals + size_of::<Admission>() <= 16 * 1024);
    }
}
