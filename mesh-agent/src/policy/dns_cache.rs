//! Answers of DNS servers, kept as long as their TTL says (RFC 2181, 5.2; RFC 2308), within a bound.

use std::time::{Duration, Instant};

use lru::LruCache;

/// Nothing is kept longer: what is asked after that long may as well be asked anew.
const LONGEST: Duration = Duration::from_hours(24);

/// What an entry takes besides its key and value, about.
const OVERHEAD: usize = 160;

/// What is kept, and how well it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsCacheStats {
    /// Entries.
    pub entries: usize,
    /// What they take, in bytes.
    pub bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    size: usize,
    stored_at: Instant,
    expires_at: Instant,
}

/// A cache bounded in bytes; the entry used longest ago makes room.
#[derive(Debug)]
pub struct DnsCache<V> {
    entries: LruCache<Box<[u8]>, Entry<V>>,
    bytes: usize,
    most: usize,
}

impl<V: Clone> DnsCache<V> {
    /// Keeps at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            most,
        }
    }

    /// What is kept under `key`, and how long it has been, unless it has expired.
    pub fn get(&mut self, key: &[u8], now: Instant) -> Option<(V, Duration)> {
        let entry = self.entries.get(key)?;
        if entry.expires_at <= now {
            self.remove(key);
            return None;
        }
        let age = now.saturating_duration_since(entry.stored_at);
        Some((entry.value.clone(), age))
    }

    /// Keeps `value`, of `size` bytes, for `lifetime` from `now`. Nothing is kept for no time.
    pub fn insert(
        &mut self,
        key: Box<[u8]>,
        value: V,
        size: usize,
        lifetime: Duration,
        now: Instant,
    ) {
        self.remove(&key);
        let size = size + key.len() + OVERHEAD;
        if lifetime.is_zero() || size > self.most {
            return;
        }
        self.bytes += size;
        let entry = Entry {
            value,
            size,
            stored_at: now,
            expires_at: now + lifetime.min(LONGEST),
        };
        self.entries.push(key, entry);
        while self.bytes > self.most {
            let Some((_, oldest)) = self.entries.pop_lru() else {
                break;
            };
            self.bytes -= oldest.size;
        }
    }

    /// What is kept now, expired entries that nobody asked for included.
    pub fn stats(&self) -> DnsCacheStats {
        DnsCacheStats {
            entries: self.entries.len(),
            bytes: self.bytes,
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.pop(key) {
            self.bytes -= entry.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn key(name: u8) -> Box<[u8]> {
        Box::new([name])
    }

    #[test]
    fn an_answer_is_kept_until_its_time_is_up() {
        let mut cache = DnsCache::new(10_000);
        let start = Instant::now();
        cache.insert(key(1), "answer", 100, Duration::from_secs(5), start);
        let (value, age) = cache.get(&[1], start + Duration::from_secs(4)).unwrap();
        assert_eq!((value, age), ("answer", Duration::from_secs(4)));
        assert!(cache.get(&[1], start + Duration::from_secs(5)).is_none());
        assert_eq!(cache.stats(), DnsCacheStats::default());
    }

    #[test]
    fn nothing_is_kept_for_longer_than_a_day() {
        let mut cache = DnsCache::new(10_000);
        let start = Instant::now();
        cache.insert(
            key(1),
            (),
            100,
            Duration::from_secs(u64::from(u32::MAX)),
            start,
        );
        assert!(cache.get(&[1], start + LONGEST).is_none());
    }

    proptest! {
        /// Against a model without bound: what is found is what was stored last, and not expired;
        /// and the bound holds.
        #[test]
        fn finds_what_was_stored_last_and_stays_within_its_bound(
            steps in prop::collection::vec((0..40_u8, 0..2_000_usize, 0..50_u64, any::<bool>()), 1..400),
            most in 200..20_000_usize,
        ) {
            let mut cache = DnsCache::new(most);
            let mut model: HashMap<u8, (usize, Instant)> = HashMap::new();
            let mut now = Instant::now();
            for (number, (name, size, seconds, store)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(1);
                if store {
                    let lifetime = Duration::from_secs(seconds);
                    cache.insert(key(name), number, size, lifetime, now);
                    model.insert(name, (number, now + lifetime));
                } else if let Some((found, _)) = cache.get(&[name], now) {
                    let (expected, expires_at) = model[&name];
                    prop_assert_eq!(found, expected);
                    prop_assert!(expires_at > now);
                }
                prop_assert!(cache.stats().bytes <= most);
                prop_assert_eq!(cache.stats().entries == 0, cache.stats().bytes == 0);
            }
        }
    }
}
