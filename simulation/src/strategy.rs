//! What clients do about it.

use std::time::Duration;

use mesh_agent::policy::{
    backoff::Backoff,
    breaker::{BreakerLimits, HalfOpen, OpenFor, Window},
    ejection::EjectionLimits,
    overload::{AdmissionLimits, Lifo, QueueLimits},
    retry_budget::BudgetLimits,
    throttle::ThrottleLimits,
};

/// An answer that comes later is of no use.
pub const USEFUL: Duration = Duration::from_secs(1);
/// A try that takes longer is given up, where tries are.
pub const PER_TRY: Duration = Duration::from_millis(250);

/// What clients do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// They wait.
    Nothing,
    /// They give up after [`USEFUL`].
    Timeouts,
    /// They give a try up after [`PER_TRY`], and try again three times, at once.
    NaiveRetries,
    /// What the agent does, with the defaults of its configuration.
    Ours,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Nothing,
        Self::Timeouts,
        Self::NaiveRetries,
        Self::Ours,
    ];

    /// In files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Timeouts => "timeouts",
            Self::NaiveRetries => "naive-retries",
            Self::Ours => "mesh-agent",
        }
    }

    /// How long a request may take with all its tries.
    pub const fn request_timeout(self) -> Option<Duration> {
        match self {
            Self::Nothing => None,
            _ => Some(USEFUL),
        }
    }

    /// How long a try may take.
    pub const fn try_timeout(self) -> Option<Duration> {
        match self {
            Self::NaiveRetries | Self::Ours => Some(PER_TRY),
            _ => None,
        }
    }

    /// Tries besides the first.
    pub const fn retries(self) -> u32 {
        match self {
            Self::NaiveRetries => 3,
            Self::Ours => 2,
            _ => 0,
        }
    }
}

/// `retries.budget`.
pub const BUDGET: BudgetLimits = BudgetLimits {
    ratio: 0.2,
    floor: 3,
};
/// `retries.backoff`.
pub const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(25),
    max: Duration::from_millis(250),
};
/// `breaker.ejection`.
pub const EJECTION: EjectionLimits = EjectionLimits {
    consecutive: 5,
    share: None,
    base: Duration::from_secs(5),
    max: Duration::from_mins(1),
    at_most: 0.5,
};
/// `breaker.throttle`.
pub const THROTTLE: ThrottleLimits = ThrottleLimits {
    k: 2.0,
    window: Duration::from_mins(2),
};
/// `overload.queue`.
pub const QUEUE: QueueLimits = QueueLimits {
    max_wait: Duration::from_millis(100),
    min_wait: Duration::from_millis(5),
    lifo: Lifo::Adaptive,
    size: 1024,
};
/// `overload.admission`.
pub const ADMISSION: AdmissionLimits = AdmissionLimits {
    wait_target: Duration::from_millis(20),
};

/// `breaker: {failureRatio: 0.5}`.
pub fn breaker() -> BreakerLimits {
    BreakerLimits {
        consecutive: Some(10),
        failure_ratio: Some(0.5),
        slow: None,
        window: Window::Time(Duration::from_secs(30)),
        minimum_calls: 20,
        sustained: Duration::ZERO,
        open: OpenFor {
            base: Duration::from_secs(1),
            max: Duration::from_secs(5),
        },
        half_open: HalfOpen {
            steps: [0.1, 0.25, 0.5, 1.0].into(),
            calls: 5,
            timeout: None,
        },
    }
}
