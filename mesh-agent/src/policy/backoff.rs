//! How long to wait before a further try.

use std::time::Duration;

/// Exponential growth with full jitter, as in Envoy and as found best by Brooker, "Exponential Backoff
/// And Jitter" (2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper end before the first further try.
    pub base: Duration,
    /// Upper end however many came before.
    pub max: Duration,
}

impl Backoff {
    /// The wait before further try number `number` (from 1). `random` is uniform in 0..1.
    pub fn wait(self, number: u32, random: f64) -> Duration {
        self.upper_end(number).mul_f64(random.clamp(0.0, 1.0))
    }

    /// base · (2^number − 1), at most max.
    fn upper_end(self, number: u32) -> Duration {
        let factor = 2_u32.saturating_pow(number.min(31)).saturating_sub(1);
        self.base.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: Backoff = Backoff {
        base: Duration::from_millis(25),
        max: Duration::from_millis(250),
    };

    #[test]
    fn upper_ends_are_those_of_envoy() {
        let ends: Vec<_> = (1..=6)
            .map(|number| USUAL.wait(number, 1.0).as_millis())
            .collect();
        assert_eq!(ends, [25, 75, 175, 250, 250, 250]);
    }

    proptest! {
        #[test]
        fn a_wait_stays_inside_its_bounds(
            base in 0..10_000_u64,
            max in 0..100_000_u64,
            number in any::<u32>(),
            random in 0.0..1.0_f64,
        ) {
            let backoff = Backoff {
                base: Duration::from_millis(base),
                max: Duration::from_millis(max),
            };
            let wait = backoff.wait(number, random);
            prop_assert!(wait <= backoff.max);
            if let Some(before) = number.checked_sub(1) {
                prop_assert!(backoff.upper_end(before) <= backoff.upper_end(number));
            }
        }
    }
}
