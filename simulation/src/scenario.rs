//! What goes wrong.

use std::time::Duration;

/// Services; the first [`AFFECTED`] of them are in trouble, and all figures are theirs.
pub const SERVICES: usize = 100;
/// See [`SERVICES`].
pub const AFFECTED: usize = 10;
/// Servers of each service.
pub const SERVERS: usize = 3;
/// What a server works on at once.
pub const WORKERS: usize = 4;
/// What it takes for one: between these.
pub const SERVICE_TIME: (Duration, Duration) =
    (Duration::from_millis(5), Duration::from_millis(11));
/// What clients ask for, as a share of what the servers can do.
pub const LOAD: f64 = 0.6;
/// What is asked of the services that are not looked at.
pub const LITTLE: f64 = 0.01;
/// When it begins to go wrong.
pub const BEGIN: Duration = Duration::from_secs(20);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One server of three takes twenty times as long, for 30 s.
    SlowServer,
    /// No server is there, for 20 s.
    Outage,
    /// All servers take four times as long, for 5 s: that is less than what is asked for, and what was not
    /// answered is asked for again.
    RetryStorm,
    /// Three times what the servers can do is asked for, for 10 s.
    FlashCrowd,
    /// One server after the other is away for 5 s.
    RollingRestart,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::SlowServer,
        Self::Outage,
        Self::RetryStorm,
        Self::FlashCrowd,
        Self::RollingRestart,
    ];

    /// In files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SlowServer => "slow-server",
            Self::Outage => "outage",
            Self::RetryStorm => "retry-storm",
            Self::FlashCrowd => "flash-crowd",
            Self::RollingRestart => "rolling-restart",
        }
    }

    /// When nothing is wrong any more.
    pub const fn end(self) -> Duration {
        let seconds = match self {
            Self::SlowServer => 30,
            Self::Outage => 20,
            Self::FlashCrowd => 10,
            Self::RetryStorm => 5,
            Self::RollingRestart => 18,
        };
        Duration::from_secs(BEGIN.as_secs() + seconds)
    }

    fn is_on(self, service: usize, now: Duration) -> bool {
        service < AFFECTED && (BEGIN..self.end()).contains(&now)
    }

    /// How many times as long a server takes.
    pub fn slowness(self, service: usize, server: usize, now: Duration) -> u32 {
        match self {
            Self::SlowServer if self.is_on(service, now) && server == 0 => 20,
            Self::RetryStorm if self.is_on(service, now) => 4,
            _ => 1,
        }
    }

    /// Whether a server is away.
    pub fn is_down(self, service: usize, server: usize, now: Duration) -> bool {
        if !self.is_on(service, now) {
            return false;
        }
        let since = now.saturating_sub(BEGIN).as_secs();
        match self {
            Self::Outage => true,
            Self::RollingRestart => since / 6 == server as u64 && since % 6 < 5,
            _ => false,
        }
    }

    /// What is asked of a service, as a share of what it can do.
    pub fn load(self, service: usize, now: Duration) -> f64 {
        if self == Self::FlashCrowd && self.is_on(service, now) {
            3.0
        } else if service < AFFECTED {
            LOAD
        } else {
            LITTLE
        }
    }
}

/// Requests a second that a service can do.
pub fn capacity() -> f64 {
    let (shortest, longest) = SERVICE_TIME;
    let mean = (shortest + longest).as_secs_f64() / 2.0;
    (SERVERS * WORKERS) as f64 / mean
}
