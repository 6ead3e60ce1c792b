//! What the types cannot say of breakers.

use std::ops::RangeInclusive;

use super::super::{refused, within};
use super::{in_range, not_less, share};
use crate::config::field_path::FieldPath;
use crate::config::finding::Finding;
use crate::config::policy::{Breaker, CallWindow, HalfOpenSteps, Throttling};
use crate::config::yaml::quoted;
use crate::policy::retry::RetryCondition;

/// Of calls.
const SHARE: RangeInclusive<f64> = 0.01..=1.0;

/// The first rule that it breaks.
pub(super) fn validate(at: &FieldPath, breaker: &Breaker) -> Result<(), Finding> {
    if let Some(consecutive) = breaker.consecutive {
        within(at.field("consecutive"), consecutive, 1..)?;
    }
    if let Some(ratio) = breaker.failure_ratio {
        within(at.field("failureRatio"), ratio, SHARE)?;
    }
    if let Some(slow) = &breaker.slow_call {
        let at = at.field("slowCall");
        in_range(at.field("threshold"), slow.threshold)?;
        within(at.field("ratio"), slow.ratio, SHARE)?;
    }
    match breaker.window {
        CallWindow::Time(span) => in_range(at.field("window"), span)?,
        CallWindow::Calls(calls) => within(at.field("window"), calls, CallWindow::CALLS)?,
    }
    within(at.field("minimumCalls"), breaker.minimum_calls, 1..)?;
    if let CallWindow::Calls(calls) = breaker.window
        && breaker.minimum_calls > calls
    {
        return Err(Finding::new(
            at.field("minimumCalls"),
            format!(
                "`{}` is more than `window` has, {calls}",
                breaker.minimum_calls
            ),
            "make it smaller, or `window` larger",
        ));
    }
    within(
        at.field("sustained"),
        breaker.sustained,
        ..=Breaker::MAX_SUSTAINED,
    )?;
    let open = at.field("openFor");
    in_range(open.field("base"), breaker.open_for.base)?;
    in_range(open.field("max"), breaker.open_for.max)?;
    not_less(
        open.field("max"),
        breaker.open_for.max,
        "base",
        breaker.open_for.base,
    )?;
    half_open(&at.field("halfOpen"), &breaker.half_open)?;
    for (index, failure) in breaker.failures.iter().enumerate() {
        let is_known = RetryCondition::parse(failure)
            .is_some_and(|it| !matches!(it, RetryCondition::Header(_)));
        if !is_known {
            let problem = format!("{} is not a condition", quoted(failure));
            return Err(refused(at.field("failures").index(index), problem));
        }
    }
    if let Some(throttle) = &breaker.throttle {
        let at = at.field("throttle");
        within(at.field("k"), throttle.k, Throttling::K)?;
        in_range(at.field("window"), throttle.window)?;
    }
    if let Some(ejection) = &breaker.ejection {
        let at = at.field("ejection");
        within(at.field("consecutive"), ejection.consecutive, 1..)?;
        if let Some(ratio) = ejection.failure_ratio {
            within(at.field("failureRatio"), ratio, SHARE)?;
        }
        within(at.field("minimumCalls"), ejection.minimum_calls, 1..)?;
        in_range(at.field("window"), ejection.window)?;
        in_range(at.field("base"), ejection.base)?;
        in_range(at.field("max"), ejection.max)?;
        not_less(at.field("max"), ejection.max, "base", ejection.base)?;
        share(at.field("atMost"), ejection.at_most)?;
    }
    Ok(())
}

fn half_open(at: &FieldPath, half_open: &HalfOpenSteps) -> Result<(), Finding> {
    let steps = at.field("steps");
    within(
        steps.clone(),
        half_open.steps.len(),
        1..=HalfOpenSteps::MAX_STEPS,
    )?;
    let mut before = 0.0;
    for (index, step) in half_open.steps.iter().enumerate() {
        within(steps.index(index), *step, HalfOpenSteps::SHARE)?;
        if *step <= before {
            let problem = format!("`{step}` is not more than the step before");
            return Err(refused(steps.index(index), problem));
        }
        before = *step;
    }
    within(at.field("calls"), half_open.calls, HalfOpenSteps::CALLS)?;
    match half_open.timeout {
        Some(timeout) => in_range(at.field("timeout"), timeout),
        None => Ok(()),
    }
}
