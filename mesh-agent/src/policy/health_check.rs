//! What a series of health checks says of a server.

use std::time::{Duration, Instant};

use super::phi_accrual::PhiAccrual;

/// When a server that is checked is down, and when it is up again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CheckLimits {
    /// How many checks in a row it takes.
    InARow {
        /// Good ones, for a server that was down to be up.
        rise: u32,
        /// Bad ones, for a server that was up to be down.
        fall: u32,
    },
    /// By how long there was no good check, compared with how regularly there were before.
    Phi {
        /// From this φ on it is down.
        threshold: f64,
        /// From one check to the next.
        interval: Duration,
    },
}

/// What the checks of one server have said so far. It is up until they say otherwise.
#[derive(Clone, Debug, Default)]
pub struct CheckedHealth {
    is_down: bool,
    /// Checks in a row that say that it is otherwise.
    against: u32,
    /// Since the first check.
    heard: Option<(Instant, PhiAccrual)>,
}

impl CheckedHealth {
    /// Whether it is down.
    pub const fn is_down(&self) -> bool {
        self.is_down
    }

    /// Adds a check. True if the server is up or down from now on and was not before.
    pub fn checked(&mut self, is_good: bool, limits: CheckLimits, now: Instant) -> bool {
        match limits {
            CheckLimits::InARow { rise, fall } => self.in_a_row(is_good, rise, fall),
            CheckLimits::Phi {
                threshold,
                interval,
            } => {
                let (first, heard) = self
                    .heard
                    .get_or_insert_with(|| (now, PhiAccrual::new(interval)));
                if is_good {
                    heard.heard(now);
                }
                let is_down = heard.phi(*first, now) >= threshold;
                std::mem::replace(&mut self.is_down, is_down) != is_down
            }
        }
    }

    fn in_a_row(&mut self, is_good: bool, rise: u32, fall: u32) -> bool {
        if is_good != self.is_down {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.is_down { rise } else { fall };
        if self.against < needed {
            return false;
        }
        self.is_down = !self.is_down;
        self.against = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It changes exactly when the last checks, as many as are needed, all say so.
        #[test]
        fn it_takes_as_many_in_a_row_as_are_needed(
            checks in prop::collection::vec(any::<bool>(), 1..200),
            rise in 1..5_u32,
            fall in 1..5_u32,
        ) {
            let limits = CheckLimits::InARow { rise, fall };
            let now = Instant::now();
            let mut health = CheckedHealth::default();
            let mut since = 0;
            for (index, is_good) in checks.iter().enumerate() {
                let was_down = health.is_down();
                let needed = if was_down { rise } else { fall } as usize;
                let run = checks[since..=index].iter().rev().take_while(|it| **it == was_down).count();
                let changed = health.checked(*is_good, limits, now);
                prop_assert_eq!(changed, run >= needed);
                prop_assert_eq!(health.is_down(), was_down != changed);
                if changed {
                    since = index + 1;
                }
            }
        }
    }

    #[test]
    fn with_phi_silence_counts_and_one_good_check_is_enough() {
        let interval = Duration::from_secs(1);
        let limits = CheckLimits::Phi {
            threshold: 8.0,
            interval,
        };
        let mut now = Instant::now();
        let mut health = CheckedHealth::default();
        for _ in 0..20 {
            now += interval;
            assert!(!health.checked(true, limits, now));
        }
        // One bad one may be chance.
        now += interval;
        assert!(!health.checked(false, limits, now));
        now += interval;
        assert!(health.checked(false, limits, now) && health.is_down());
        now += interval;
        assert!(health.checked(true, limits, now) && !health.is_down());
    }
}
