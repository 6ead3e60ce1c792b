//! Saves up for bursts: tokens come at an even rate up to a capacity, and each request takes one.

use super::{Answer, Counter, Left, Terms};

/// Promises: never more than `burst` + `limit` × t / `per` in any time t. Kept as what is owed (the virtual
/// scheduling of the Generic Cell Rate Algorithm, ITU-T I.371), in whole numbers, so it is exact also when
/// the limit changes. Each rate holds from the call that passes it to the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenBucket {
    /// Tokens that are missing, in parts: one token is `per` of them, and in a nanosecond `limit` of them
    /// come back.
    owed: u128,
    at: u64,
    limit: u32,
    per: u64,
}

impl TokenBucket {
    fn owed(&self, now: u64) -> u128 {
        let back = u128::from(now - self.at) * u128::from(self.limit);
        self.owed.saturating_sub(back)
    }

    /// How long it takes until only so many parts are owed.
    fn time_until(&self, parts: u128) -> u64 {
        let too_many = self.owed.saturating_sub(parts);
        let time = too_many.div_ceil(u128::from(self.limit).max(1));
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

fn capacity(terms: &Terms) -> u128 {
    u128::from(terms.burst) * u128::from(terms.per)
}

impl Counter for TokenBucket {
    fn ask(&mut self, terms: &Terms, now: u64) -> Answer {
        self.owed = self.owed(now);
        self.at = now;
        self.limit = terms.limit;
        if self.per != terms.per {
            // The same tokens in other parts.
            let tokens = self.owed as f64 / self.per.max(1) as f64;
            self.owed = (tokens * terms.per as f64).ceil() as u128;
            self.per = terms.per;
        }
        let free = capacity(terms).saturating_sub(u128::from(terms.per));
        if self.owed <= free {
            return Answer::Allowed;
        }
        Answer::Refused {
            retry_after: self.time_until(free),
        }
    }

    fn add(&mut self, terms: &Terms, _: u64) {
        self.owed += u128::from(terms.per);
    }

    fn left(&self, terms: &Terms, _: u64) -> Left {
        let tokens = capacity(terms).saturating_sub(self.owed) / u128::from(terms.per);
        Left {
            remaining: tokens as u32,
            reset: self.time_until(0),
        }
    }

    fn is_idle(&self, _: u64, now: u64) -> bool {
        self.owed(now) == 0
    }
}
