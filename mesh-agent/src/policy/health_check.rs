//! What a series of health checks says of a server.

/// How many checks in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckLimits {
    /// Good ones, for a server that was down to be up.
    pub rise: u32,
    /// Bad ones, for a server that was up to be down.
    pub fall: u32,
}

/// What the checks of one server have said so far. It is up until they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedHealth {
    is_down: bool,
    /// Checks in a row that say that it is otherwise.
    against: u32,
}

impl CheckedHealth {
    /// Whether it is down.
    pub const fn is_down(&self) -> bool {
        self.is_down
    }

    /// Adds a check. True if the server is up or down from now on and was not before.
    pub fn checked(&mut self, is_good: bool, limits: CheckLimits) -> bool {
        if is_good != self.is_down {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.is_down {
            limits.rise
        } else {
            limits.fall
        };
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
            let limits = CheckLimits { rise, fall };
            let mut health = CheckedHealth::default();
            let mut since = 0;
            for (index, is_good) in checks.iter().enumerate() {
                let was_down = health.is_down();
                let needed = if was_down { rise } else { fall } as usize;
                let run = checks[since..=index].iter().rev().take_while(|it| **it == was_down).count();
                let changed = health.checked(*is_good, limits);
                prop_assert_eq!(changed, run >= needed);
                prop_assert_eq!(health.is_down(), was_down != changed);
                if changed {
                    since = index + 1;
                }
            }
        }
    }
}
