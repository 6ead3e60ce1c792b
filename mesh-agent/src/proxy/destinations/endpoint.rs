//! One server of a destination, and what is known of it.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::latency::RoundTrip;
use crate::policy::{
    balance::EndpointLoad,
    ejection::{EjectionLimits, EndpointHealth},
    health_check::{CheckLimits, CheckedHealth},
    overload::{self, ToldLevel},
    priority::Priority,
};

/// One server of a destination, as all pods of this node know it.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// How busy it is.
    pub load: EndpointLoad,
    /// What the network takes to it and back.
    pub round_trip: RoundTrip,
    health: Mutex<EndpointHealth>,
    /// Whether `health` has anything to tell, so that a good server costs no lock.
    has_failed: AtomicBool,
    /// Since when it is known, or up again by health checks.
    up_since: Mutex<Instant>,
    /// What health checks say.
    checked: Mutex<CheckedHealth>,
    is_down: AtomicBool,
    requests: AtomicU64,
    failures: AtomicU64,
    /// What it says of its overload.
    told: Mutex<ToldLevel>,
    /// Whether it says anything, so that others cost no lock.
    has_told: AtomicBool,
}

impl Endpoint {
    /// One that nothing is known of.
    pub fn new(address: SocketAddr, now: Instant) -> Self {
        Self {
            address,
            load: EndpointLoad::new(now),
            round_trip: RoundTrip::default(),
            health: Mutex::default(),
            has_failed: AtomicBool::new(false),
            up_since: Mutex::new(now),
            checked: Mutex::default(),
            is_down: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            told: Mutex::default(),
            has_told: AtomicBool::new(false),
        }
    }

    /// Whether it is in rotation.
    pub fn is_healthy(&self, now: Instant) -> bool {
        !self.is_down() && (!self.has_failed.load(Ordering::Relaxed) || !self.health().is_out(now))
    }

    /// Whether health checks say that it is down.
    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Adds a health check. True if it is up or down from now on and was not before.
    pub fn checked(&self, is_good: bool, limits: CheckLimits, now: Instant) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = checked.checked(is_good, limits, now);
        if changed && !checked.is_down() {
            *self.up_since() = now;
        }
        self.is_down.store(checked.is_down(), Ordering::Relaxed);
        changed
    }

    /// It is not checked any more.
    pub fn forget_checks(&self) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = CheckedHealth::default();
        self.is_down.store(false, Ordering::Relaxed);
    }

    /// What share of its requests it is to get while it starts slowly, over `length`: from a tenth on.
    pub fn warmth(&self, length: Duration, now: Instant) -> f64 {
        const COLD: f64 = 0.1;
        let mut since = *self.up_since();
        if self.has_failed.load(Ordering::Relaxed)
            && let Some(back) = self.health().back_since(now)
        {
            since = since.max(back);
        }
        let passed = now.saturating_duration_since(since);
        (passed.as_secs_f64() / length.as_secs_f64()).clamp(COLD, 1.0)
    }

    /// For how long it is still out of rotation, if it is.
    pub fn out_for(&self, now: Instant) -> Option<Duration> {
        let until = self.health().out_until(now)?;
        Some(until.saturating_duration_since(now))
    }

    /// It says up to which priority it lets requests in ([`Priority::ordinal`]), or that it lets in all.
    pub fn tells(&self, level: Option<u16>, now: Instant) {
        if level.is_some() || self.has_told() {
            self.told().told(level.unwrap_or(u16::MAX), now);
            self.has_told.store(level.is_some(), Ordering::Relaxed);
        }
    }

    /// Whether it has said anything of that.
    pub fn has_told(&self) -> bool {
        self.has_told.load(Ordering::Relaxed)
    }

    /// Whether it would let a request in, by what it said last.
    pub fn would_admit(&self, priority: Priority, now: Instant) -> overload::Answer {
        self.told().ask(priority, now)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, ToldLevel> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries sent there, and those that failed.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.requests.load(Ordering::Relaxed),
            self.failures.load(Ordering::Relaxed),
        )
    }

    /// It answered a try.
    pub(super) fn answered(&self, took: Duration, now: Instant, limits: Option<EjectionLimits>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.load.answered(took, now);
        if let Some(limits) = limits
            && (limits.share.is_some() || self.has_failed.load(Ordering::Relaxed))
        {
            let mut health = self.health();
            health.succeeded(now, limits);
            self.has_failed
                .store(*health != EndpointHealth::default(), Ordering::Relaxed);
        }
    }

    /// A try there was given up after `took`, because another one was answered sooner.
    pub(super) fn given_up(&self, took: Duration, now: Instant) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.load.took_longer_than(took, now);
    }

    /// Its agent refused a try.
    pub(super) fn refused(&self, now: Instant) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.load.failed(now);
    }

    /// It failed a try. Says for how long it is out of rotation, if it is from now on.
    pub(super) fn failed(
        &self,
        now: Instant,
        limits: Option<EjectionLimits>,
        peers: &[std::sync::Arc<Self>],
    ) -> Option<Duration> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.load.failed(now);
        let limits = limits?;
        let out = peers.iter().filter(|peer| !peer.is_healthy(now)).count();
        let mut health = self.health();
        self.has_failed.store(true, Ordering::Relaxed);
        health.failed(now, limits, out, peers.len())
    }

    fn up_since(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.up_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> std::sync::MutexGuard<'_, EndpointHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
