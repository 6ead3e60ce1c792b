//! What the types cannot say of limits.

use super::super::{refused, within};
use super::{in_range, share};
use crate::config::field_path::FieldPath;
use crate::config::finding::Finding;
use crate::config::policy::{AdaptiveRange, FollowRule, Limits, MOST_FOLLOW_RULES, Rate};

/// The first rule that they break.
pub(super) fn validate(at: &FieldPath, limits: &Limits) -> Result<(), Finding> {
    for (name, most) in [
        ("connections", limits.connections),
        ("requests", limits.requests),
    ] {
        if let Some(most) = most {
            within(at.field(name), most, 1..)?;
        }
    }
    if limits.pending.is_some() && limits.connections.is_none() {
        return Err(Finding::new(
            at.field("pending"),
            "nothing is waited for without `connections`",
            "add `connections`, or remove it",
        ));
    }
    if let Some(range) = &limits.adaptive {
        adaptive(&at.field("adaptive"), range)?;
    }
    let rates = at.field("rate");
    within(rates.clone(), limits.rate.len(), ..=Limits::MAX_RATES)?;
    for (index, rate) in limits.rate.iter().enumerate() {
        self::rate(&rates.index(index), rate)?;
    }
    Ok(())
}

/// Between what an adaptive limit moves.
pub(in crate::config::validate) fn adaptive(
    at: &FieldPath,
    range: &AdaptiveRange,
) -> Result<(), Finding> {
    within(at.field("min"), range.min, 1..)?;
    within(at.field("max"), range.max, range.min..)
}

fn rate(at: &FieldPath, rate: &Rate) -> Result<(), Finding> {
    within(at.field("limit"), rate.limit, Rate::LIMIT)?;
    in_range(at.field("per"), rate.per)?;
    if let Some(burst) = rate.burst {
        within(at.field("burst"), burst, ..=*Rate::LIMIT.end())?;
    }
    let follow = at.field("follow");
    within(follow.clone(), rate.follow.len(), ..=MOST_FOLLOW_RULES)?;
    for (index, rule) in rate.follow.iter().enumerate() {
        self::follow(&follow.index(index), rule)?;
    }
    Ok(())
}

fn follow(at: &FieldPath, rule: &FollowRule) -> Result<(), Finding> {
    let given = [
        rule.failure_ratio.is_some(),
        rule.response_time.is_some(),
        rule.requests.is_some(),
    ];
    if given.iter().filter(|it| **it).count() != 1 {
        let problem = "needs one of `failureRatio`, `responseTime` and `requests`";
        return Err(refused(at.clone(), problem));
    }
    if let Some(ratio) = rule.failure_ratio {
        share(at.field("failureRatio"), ratio)?;
    }
    if let Some(span) = rule.response_time {
        in_range(at.field("responseTime"), span)?;
    }
    within(at.field("factor"), rule.factor, 0.01..=1.0)
}
