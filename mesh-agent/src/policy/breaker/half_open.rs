//! Calls that find out whether a destination is well again.

use std::time::{Duration, Instant};

use super::{BreakerLimits, Refused};

/// When no call was let through for so long, the next one is, however small the share: where there is little
/// to do, it would take too long to find out.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Share of failed calls that fails a step, where the limits have none.
pub(super) const RATIO: f64 = 0.5;

/// The calls of one step.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// What the share has earned: with 1, a call is let through.
    credit: f64,
    last: Option<Instant>,
    ended: u32,
    failed: u32,
}

/// What a call says of its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    None,
    Passed,
    Failed,
}

impl Probes {
    /// Lets a share of the calls through, and the first of all.
    pub(super) fn admit(&mut self, share: f64, now: Instant) -> Result<(), Refused> {
        self.credit += share;
        let waited = self.last.map(|last| now.saturating_duration_since(last));
        // As sums of shares are never quite exact.
        if self.credit < 1.0 - 1e-9
            && let Some(waited) = waited
            && waited < PATIENCE
        {
            return Err(Refused {
                retry_after: PATIENCE.saturating_sub(waited),
            });
        }
        self.credit = (self.credit - 1.0).max(0.0);
        self.last = Some(now);
        Ok(())
    }

    /// A call has ended. The step is decided as soon as nothing could change it.
    pub(super) fn record(&mut self, is_failure: bool, limits: &BreakerLimits) -> Verdict {
        let calls = limits.half_open.calls.max(1);
        let ratio = limits.failure_ratio.unwrap_or(RATIO);
        let too_many = ((ratio * f64::from(calls)).ceil() as u32).clamp(1, calls);
        self.ended += 1;
        self.failed += u32::from(is_failure);
        let left = calls.saturating_sub(self.ended);
        if self.failed >= too_many {
            Verdict::Failed
        } else if self.failed + left < too_many {
            Verdict::Passed
        } else {
            Verdict::None
        }
    }
}
