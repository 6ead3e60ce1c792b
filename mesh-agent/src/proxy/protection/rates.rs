//! What was counted against the rates of a destination.

use std::{
    collections::HashMap,
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

/// What stands for those that came too late.
const OTHERS: u64 = 0;

/// What was counted against each rate of a policy.
#[derive(Debug, Default)]
pub struct Rates(Vec<Keyed>);

/// What was counted against a rate, by key.
#[derive(Debug, Default)]
struct Keyed(HashMap<u64, Limiter>);

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
        let mut counting: Vec<(&RatePolicy, &mut Limiter, f64)> =
            Vec::with_capacity(policies.len());
        for (policy, keyed) in policies.iter().zip(&mut self.0) {
            if counted(policy) {
                let limiter = keyed.limiter(policy, key(policy, asking), now);
                counting.push((policy, limiter, share * factor(&policy.follow, load)));
            }
        }
        let refused = counting.iter_mut().filter_map(|(policy, limiter, factor)| {
            match limiter.check(&policy.limit, *factor, now) {
                Decision::Refused { retry_after, quota } => Some(TooMany { retry_after, quota }),
                _ => None,
            }
        });
        if let Some(worst) = refused.max_by_key(|it| it.retry_after) {
            return Err(worst);
        }
        let waits = counting.iter_mut().map(|(policy, limiter, factor)| {
            match limiter.take(&policy.limit, *factor, now) {
                Decision::Delayed { wait, .. } => wait,
                _ => Duration::ZERO,
            }
        });
        Ok(waits.max().unwrap_or_default())
    }
}

impl Keyed {
    fn limiter(&mut self, policy: &RatePolicy, key: u64, now: Instant) -> &mut Limiter {
        let limiters = &mut self.0;
        if limiters.len() >= MOST_KEYS && !limiters.contains_key(&key) {
            limiters.retain(|_, limiter| !limiter.is_idle(&policy.limit, now));
        }
        let is_known = limiters.contains_key(&key) || limiters.len() < MOST_KEYS;
        let key = if is_known { key } else { OTHERS };
        limiters
            .entry(key)
            .or_insert_with(|| Limiter::new(&policy.limit))
    }
}

/// With which others a request is counted.
pub fn key(policy: &RatePolicy, asking: &Asking<'_>) -> u64 {
    match &policy.by {
        RateKey::Destination => OTHERS,
        RateKey::Pod => hash(asking.pod.as_bytes(), 1),
        RateKey::Header(name) => {
            let value = asking.headers.and_then(|headers| headers.get(name));
            value.map_or(OTHERS, |value| hash(value.as_bytes(), 2))
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
