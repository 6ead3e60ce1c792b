//! What was counted against the rates of a destination.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    time::{Duration, Instant},
};

use super::{Asking, policy::RatePolicy};
use crate::{
    config::RateKey,
    policy::{
        balance::hash,
        rate_limit::{
            Decision, Limiter, Quota,
            follow::{Load, factor},
        },
    },
};

/// Pods or values of a header that are told apart. When there are more, those that came too late are
/// counted together, so that nobody gets more by calling itself something else each time.
const MOST_KEYS: usize = 1024;

/// What was counted against each rate of a policy.
#[derive(Debug, Default)]
pub struct Rates(Vec<Keyed>);

/// What was counted against a rate.
#[derive(Debug, Default)]
struct Keyed {
    /// By those that stand for themselves, by key: that is a hash already.
    by_key: HashMap<u64, Limiter, BuildHasherDefault<Same>>,
    /// By all others.
    others: Option<Limiter>,
}

/// Takes a key for its own hash.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// That a request comes too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// When it would not, if nothing else comes.
    pub retry_after: Duration,
    /// What is left of the rate.
    pub quota: Quota,
}

impl Rates {
    /// Counts a request against those of `policies` that are `counted`, if each of them allows it. Says how
    /// long it has to wait. Only `share` of each is there for it.
    pub fn take(
        &mut self,
        policies: &[RatePolicy],
        counted: impl Fn(&RatePolicy) -> bool,
        asking: &Asking<'_>,
        load: &Load,
        share: f64,
        now: Instant,
    ) -> Result<Duration, TooMany> {
        self.0.resize_with(policies.len(), Keyed::default);
        let mut ask = |from: usize, is_taken: bool| {
            let mut said: Result<Duration, TooMany> = Ok(Duration::ZERO);
            let all = policies.iter().zip(&mut self.0).filter(|it| counted(it.0));
            for (policy, keyed) in all.skip(from) {
                let limiter = keyed.limiter(policy, key(policy, asking), now);
                let factor = share * factor(&policy.follow, load);
                let decision = if is_taken {
                    limiter.take(&policy.limit, factor, now)
                } else {
                    limiter.check(&policy.limit, factor, now)
                };
                said = worse(said, decision);
                if is_taken && said.is_err() {
                    return said;
                }
            }
            said
        };
        // The first counts only what it allows itself; the others must allow it first.
        ask(1, false)?;
        ask(0, true)
    }
}

/// The longer wait, or the one that is refused for longer.
fn worse(said: Result<Duration, TooMany>, decision: Decision) -> Result<Duration, TooMany> {
    let next = match decision {
        Decision::Allowed(_) => Ok(Duration::ZERO),
        Decision::Delayed { wait, .. } => Ok(wait),
        Decision::Refused { retry_after, quota } => Err(TooMany { retry_after, quota }),
    };
    match (said, next) {
        (Err(one), Err(other)) if one.retry_after >= other.retry_after => Err(one),
        (Err(one), Ok(_)) => Err(one),
        (_, Err(other)) => Err(other),
        (Ok(one), Ok(other)) => Ok(one.max(other)),
    }
}

#[cfg(test)]
impl Rates {
    /// What it takes beside itself; a sliding window at its largest.
    pub fn heap_bytes(&self) -> usize {
        const SLIDING_WINDOW: usize = 2 << 10;
        let entry = size_of::<(u64, Limiter)>() + 1;
        let keyed = self.0.iter().map(|it| it.by_key.capacity() * entry);
        let limiters = self.0.iter().map(|it| it.by_key.len() + 1);
        self.0.capacity() * size_of::<Keyed>()
            + keyed.sum::<usize>()
            + limiters.sum::<usize>() * SLIDING_WINDOW
    }
}

impl Keyed {
    fn limiter(&mut self, policy: &RatePolicy, key: Option<u64>, now: Instant) -> &mut Limiter {
        let limiters = &mut self.by_key;
        let made = || Limiter::new(&policy.limit);
        let Some(key) = key else {
            return self.others.get_or_insert_with(made);
        };
        if limiters.len() >= MOST_KEYS && !limiters.contains_key(&key) {
            limiters.retain(|_, limiter| !limiter.is_idle(&policy.limit, now));
            if limiters.len() >= MOST_KEYS {
                return self.others.get_or_insert_with(made);
            }
        }
        limiters.entry(key).or_insert_with(made)
    }
}

/// With which others a request is counted; `None`: with all that stand for nothing else.
pub fn key(policy: &RatePolicy, asking: &Asking<'_>) -> Option<u64> {
    match &policy.by {
        RateKey::Destination => None,
        RateKey::Pod => Some(hash(asking.pod.as_bytes(), 1)),
        RateKey::Header(name) => {
            let value = asking.headers?.get(name)?;
            Some(hash(value.as_bytes(), 2))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::policy::rate_limit::{Algorithm, RateLimit};

    fn policy(limit: u32, by: RateKey) -> RatePolicy {
        RatePolicy {
            limit: RateLimit {
                algorithm: Algorithm::TokenBucket,
                limit,
                per: Duration::from_mins(1),
                burst: 0,
            },
            by,
            follow: Vec::new(),
            is_shared: false,
        }
    }

    fn asking<'a>(pod: &'a str, headers: &'a HeaderMap) -> Asking<'a> {
        Asking {
            pod,
            headers: Some(headers),
            is_critical: false,
        }
    }

    fn ask(rates: &mut Rates, policies: &[RatePolicy], asking: &Asking<'_>, now: Instant) -> bool {
        let load = Load::default();
        rates
            .take(policies, |_| true, asking, &load, 1.0, now)
            .is_ok()
    }

    #[test]
    fn a_request_counts_at_each_level_or_at_none() {
        let now = Instant::now();
        let policies = [policy(10, RateKey::Destination), policy(4, RateKey::Pod)];
        let none = HeaderMap::new();
        let mut rates = Rates::default();
        let mut let_through = |pod| {
            let pod = asking(pod, &none);
            (0..8)
                .filter(|_| ask(&mut rates, &policies, &pod, now))
                .count()
        };
        assert_eq!(let_through("one"), 4);
        // What the first was refused is there for the others.
        assert_eq!(let_through("two"), 4);
        assert_eq!(let_through("three"), 2);
    }

    #[test]
    fn what_the_first_rate_refuses_counts_against_no_other() {
        let mut now = Instant::now();
        let short = RatePolicy {
            limit: RateLimit {
                per: Duration::from_secs(1),
                ..policy(2, RateKey::Destination).limit
            },
            ..policy(2, RateKey::Destination)
        };
        let policies = [short, policy(6, RateKey::Pod)];
        let none = HeaderMap::new();
        let pod = asking("one", &none);
        let mut rates = Rates::default();
        let mut seconds = (0..4).map(|_| {
            now += Duration::from_secs(1);
            let asked = (0..10).filter(|_| ask(&mut rates, &policies, &pod, now));
            asked.count()
        });
        assert!(seconds.by_ref().take(3).all(|let_through| let_through == 2));
        assert_eq!(seconds.next(), Some(0), "six in a minute");
    }

    #[test]
    fn a_client_that_is_someone_else_each_time_gets_no_more() {
        let now = Instant::now();
        let policies = [policy(1, RateKey::Header("x-tenant".to_owned()))];
        let mut rates = Rates::default();
        let let_through = (0..5 * MOST_KEYS).filter(|tenant| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_str(&tenant.to_string());
            headers.insert("x-tenant", value.unwrap());
            ask(&mut rates, &policies, &asking("pod", &headers), now)
        });
        assert_eq!(let_through.count(), MOST_KEYS + 1);
    }
}
