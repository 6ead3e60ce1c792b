//! What the types cannot say of policies.

mod breaker;
pub(super) mod limits;

use super::refused;
use crate::config::field_path::FieldPath;
use crate::config::finding::Finding;
use crate::config::policy::{
    Adaptive, Balance, BalanceAlgorithm, Fallback, HealthCheck, Hedge, Policy, Retries, Timeouts,
};
use crate::config::values::Timespan;
use crate::config::yaml::quoted;
use crate::policy::balance::HashKey;
use crate::policy::critical::Critical;
use crate::policy::retry::RetryCondition;

/// The first rule that the policy at `at` breaks.
pub(super) fn validate(at: &FieldPath, policy: &Policy) -> Result<(), Finding> {
    timeouts(&at.field("timeouts"), &policy.timeouts)?;
    if let Some(retries) = &policy.retries {
        self::retries(&at.field("retries"), retries)?;
    }
    balance(&at.field("balance"), &policy.balance)?;
    breaker::validate(&at.field("breaker"), &policy.breaker)?;
    limits::validate(&at.field("limits"), &policy.limits)?;
    if let Some(fallback) = &policy.fallback {
        self::fallback(&at.field("fallback"), fallback)?;
    }
    critical(&at.field("critical"), &policy.critical)?;
    if let Some(check) = &policy.health_check {
        health_check(&at.field("healthCheck"), check)?;
    }
    Ok(())
}

fn health_check(at: &FieldPath, check: &HealthCheck) -> Result<(), Finding> {
    let is_path = check.path.starts_with('/') && check.path.bytes().all(|it| it.is_ascii_graphic());
    if !is_path {
        let problem = format!("{} is not a path", quoted(&check.path));
        return Err(refused(at.field("path"), problem));
    }
    if check.service.len() > HealthCheck::MAX_SERVICE {
        return Err(refused(at.field("service"), "is too long"));
    }
    in_range(at.field("interval"), check.interval)?;
    in_range(at.field("timeout"), check.timeout)?;
    if let Some(phi) = check.phi
        && !HealthCheck::PHI.contains(&phi)
    {
        return Err(refused(at.field("phi"), format!("`{phi}` is out of range")));
    }
    for (name, count) in [("rise", check.rise), ("fall", check.fall)] {
        if count == 0 {
            return Err(refused(at.field(name), "`0` is out of range"));
        }
    }
    Ok(())
}

fn timeouts(at: &FieldPath, timeouts: &Timeouts) -> Result<(), Finding> {
    in_range(at.field("connect"), timeouts.connect)?;
    in_range(at.field("idle"), timeouts.idle)?;
    for (name, span) in [("request", timeouts.request), ("perTry", timeouts.per_try)] {
        if let Some(span) = span {
            in_range(at.field(name), span)?;
        }
    }
    if !is_header_name(&timeouts.header) {
        let problem = format!("{} is not the name of a header", quoted(&timeouts.header));
        return Err(refused(at.field("header"), problem));
    }
    if let Some(adaptive) = &timeouts.adaptive {
        let at = at.field("adaptive");
        in_range(at.field("target"), adaptive.target)?;
        in_range(at.field("max"), adaptive.max)?;
        not_less(at.field("max"), adaptive.max, "target", adaptive.target)?;
        if !Adaptive::WINDOW.contains(&adaptive.window) {
            let problem = format!("`{}` is out of range", adaptive.window);
            return Err(refused(at.field("window"), problem));
        }
    }
    Ok(())
}

fn retries(at: &FieldPath, retries: &Retries) -> Result<(), Finding> {
    if retries.attempts > Retries::MAX_ATTEMPTS {
        let problem = format!("`{}` is too many", retries.attempts);
        return Err(refused(at.field("attempts"), problem));
    }
    for (index, on) in retries.on.iter().enumerate() {
        if RetryCondition::parse(on).is_none() {
            let problem = format!("{} is not a condition", quoted(on));
            return Err(refused(at.field("on").index(index), problem));
        }
    }
    let backoff = at.field("backoff");
    in_range(backoff.field("base"), retries.backoff.base)?;
    in_range(backoff.field("max"), retries.backoff.max)?;
    not_less(
        backoff.field("max"),
        retries.backoff.max,
        "base",
        retries.backoff.base,
    )?;
    share(at.field("budget").field("ratio"), retries.budget.ratio)?;
    if let Some(hedge) = &retries.hedge {
        let at = at.field("hedge");
        if hedge.parsed_after().is_none() {
            let problem = format!("{} is neither", quoted(&hedge.after));
            return Err(refused(at.field("after"), problem));
        }
        if !Hedge::MAX.contains(&hedge.max) {
            let problem = format!("`{}` is out of range", hedge.max);
            return Err(refused(at.field("max"), problem));
        }
    }
    if retries.buffer_bytes > Retries::MAX_BUFFER {
        let problem = format!("`{}` is too large", retries.buffer_bytes);
        return Err(refused(at.field("bufferBytes"), problem));
    }
    Ok(())
}

fn fallback(at: &FieldPath, fallback: &Fallback) -> Result<(), Finding> {
    if fallback.destination.is_some() {
        let is_alone =
            fallback.status.is_none() && fallback.headers.is_empty() && fallback.body.is_empty();
        if !is_alone {
            return Err(Finding::new(
                at.clone(),
                "has both a `destination` and an answer",
                "keep one of them",
            ));
        }
        return Ok(());
    }
    if let Some(status) = fallback.status
        && !Fallback::STATUS.contains(&status)
    {
        let problem = format!("`{status}` is out of range");
        return Err(refused(at.field("status"), problem));
    }
    for (name, value) in &fallback.headers {
        let is_header = is_header_name(name) && http::HeaderValue::try_from(value.as_str()).is_ok();
        if !is_header {
            let problem = format!("{} is not a header", quoted(name));
            return Err(refused(at.field("headers"), problem));
        }
    }
    if fallback.body.len() > Fallback::MAX_BODY {
        return Err(refused(at.field("body"), "is too long"));
    }
    Ok(())
}

/// Requests that are refused last.
pub(super) fn critical(at: &FieldPath, critical: &[String]) -> Result<(), Finding> {
    let wrong = critical.iter().position(|it| Critical::parse(it).is_none());
    wrong.map_or(Ok(()), |index| {
        let problem = format!("{} is neither", quoted(&critical[index]));
        Err(refused(at.index(index), problem))
    })
}

fn balance(at: &FieldPath, balance: &Balance) -> Result<(), Finding> {
    if let Some(slow_start) = balance.slow_start {
        in_range(at.field("slowStart"), slow_start)?;
    }
    let is_hash = balance.algorithm == BalanceAlgorithm::ConsistentHash;
    match &balance.key {
        Some(key) if HashKey::parse(key).is_none() => {
            let problem = format!("{} is nothing to go by", quoted(key));
            Err(refused(at.field("key"), problem))
        }
        Some(_) if !is_hash => {
            let remedy = "remove it, or set `algorithm: consistent-hash`";
            Err(Finding::new(
                at.field("key"),
                "only `consistent-hash` goes by a key",
                remedy,
            ))
        }
        None if is_hash => Err(Finding::new(
            at.clone(),
            "`consistent-hash` needs a `key` to go by",
            "add `key: source`, `key: header:NAME` or `key: cookie:NAME`",
        )),
        _ => Ok(()),
    }
}

pub(super) fn in_range(at: FieldPath, span: Timespan) -> Result<(), Finding> {
    if Timeouts::RANGE.contains(&span) {
        return Ok(());
    }
    Err(refused(at, format!("`{span}` is out of range")))
}

pub(super) fn not_less(
    at: FieldPath,
    span: Timespan,
    name: &str,
    than: Timespan,
) -> Result<(), Finding> {
    if span >= than {
        return Ok(());
    }
    Err(refused(
        at,
        format!("`{span}` is less than `{name}`, {than}"),
    ))
}

pub(super) fn share(at: FieldPath, share: f64) -> Result<(), Finding> {
    if (0.0..=1.0).contains(&share) {
        return Ok(());
    }
    Err(refused(at, format!("`{share}` is out of range")))
}

pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(crate::policy::detection::is_token)
}
