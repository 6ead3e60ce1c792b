//! What keeps servers from being asked too much: every field, and what is refused.

use std::collections::BTreeMap;

use super::{check, check_pod};
use crate::config::{
    AdaptiveRange, AdmissionControl, Breaker, CallWindow, Ejection, Fallback, FollowRule,
    HalfOpenSteps, LifoRule, Limits, Mode, OpenSpans, Overload, Rate, RateAlgorithm, RateKey,
    SlowCall, Throttling, Timespan, WaitingQueue,
};

pub(super) fn every_field_of_overload() -> Overload {
    Overload {
        mode: Mode::Observe,
        concurrency: Some(7),
        adaptive: AdaptiveRange { min: 2, max: 9 },
        queue: WaitingQueue {
            max_wait: Timespan::from_millis(90),
            min_wait: Timespan::from_millis(4),
            lifo: LifoRule::Always,
            size: 11,
        },
        admission: Some(AdmissionControl {
            wait_target: Timespan::from_millis(8),
            priority_header: "x-rank".to_owned(),
            user_header: "x-who".to_owned(),
        }),
        critical: vec!["path:/pay".to_owned()],
    }
}

pub(super) fn every_field_of_a_breaker() -> Breaker {
    Breaker {
        mode: Some(Mode::Enforce),
        consecutive: Some(6),
        failure_ratio: Some(0.6),
        slow_call: Some(SlowCall {
            threshold: Timespan::from_secs(3),
            ratio: 0.7,
        }),
        window: CallWindow::Calls(200),
        minimum_calls: 30,
        sustained: Timespan::from_secs(4),
        open_for: OpenSpans {
            base: Timespan::from_secs(2),
            max: Timespan::from_secs(20),
        },
        half_open: HalfOpenSteps {
            steps: vec![0.2, 1.0],
            calls: 8,
            timeout: Some(Timespan::from_millis(700)),
        },
        failures: vec!["500".to_owned(), "grpc-internal".to_owned()],
        throttle: Some(Throttling {
            mode: Some(Mode::Observe),
            k: 1.5,
            window: Timespan::from_secs(60),
        }),
        ejection: Some(Ejection {
            consecutive: 3,
            failure_ratio: Some(0.4),
            minimum_calls: 9,
            window: Timespan::from_secs(5),
            base: Timespan::from_secs(1),
            max: Timespan::from_secs(60),
            at_most: 0.3,
        }),
    }
}

pub(super) fn every_field_of_limits() -> Limits {
    let rule = |failure_ratio, response_time, requests, factor| FollowRule {
        failure_ratio,
        response_time,
        requests,
        factor,
    };
    Limits {
        mode: Some(Mode::Enforce),
        connections: Some(5),
        pending: Some(6),
        requests: Some(7),
        adaptive: Some(AdaptiveRange { min: 3, max: 8 }),
        rate: vec![Rate {
            algorithm: RateAlgorithm::LeakyBucket,
            limit: 10,
            per: Timespan::from_secs(2),
            burst: Some(4),
            by: RateKey::Header("x-tenant".to_owned()),
            shared: true,
            follow: vec![
                rule(Some(0.5), None, None, 0.1),
                rule(None, Some(Timespan::from_secs(2)), None, 0.2),
                rule(None, None, Some(30), 0.3),
            ],
        }],
    }
}

pub(super) fn every_field_of_a_fallback() -> Fallback {
    Fallback {
        destination: None,
        status: Some(203),
        headers: BTreeMap::from([("x-kind".to_owned(), "old".to_owned())]),
        body: "sorry".to_owned(),
    }
}

#[test]
fn breakers_and_limits_that_cannot_be() {
    check(&[
        (
            "defaults: {policy: {mode: shadow}}",
            "1:27: defaults.policy.mode: `shadow` is unknown here; write `enforce` or `observe`",
        ),
        (
            "defaults: {policy: {breaker: {failureRatio: 1.5}}}",
            "1:45: defaults.policy.breaker.failureRatio: `1.5` is out of range; write a number from 0.01 to 1",
        ),
        (
            "defaults: {policy: {breaker: {window: 0}}}",
            "1:39: defaults.policy.breaker.window: `0` is out of range; write a duration such as `30s`, or a number of calls from 1 to 10000",
        ),
        (
            "defaults: {policy: {breaker: {window: soon}}}",
            "1:39: defaults.policy.breaker.window: `soon` is not a duration; write a duration such as `30s`, or a number of calls from 1 to 10000",
        ),
        (
            "defaults: {policy: {breaker: {window: 10}}}",
            "1:30: defaults.policy.breaker.minimumCalls: `20` is more than `window` has, 10; make it smaller, or `window` larger",
        ),
        (
            "defaults: {policy: {breaker: {openFor: {base: 2m}}}}",
            "1:40: defaults.policy.breaker.openFor.max: `1m` is less than `base`, 2m; write a duration from `base` to 24h such as `60s`",
        ),
        (
            "defaults: {policy: {breaker: {halfOpen: {steps: [0.5, 0.2]}}}}",
            "1:55: defaults.policy.breaker.halfOpen.steps[1]: `0.2` is not more than the step before; write a share from 0.01 to 1, larger than the one before",
        ),
        (
            "defaults: {policy: {breaker: {failures: ['header:x']}}}",
            "1:42: defaults.policy.breaker.failures[0]: `header:x` is not a condition; write a condition such as 5xx, \"503\", reset, per-try-timeout, connect-failure or grpc-unavailable",
        ),
        (
            "defaults: {policy: {limits: {pending: 5}}}",
            "1:39: defaults.policy.limits.pending: nothing is waited for without `connections`; add `connections`, or remove it",
        ),
        (
            "defaults: {policy: {limits: {rate: [{limit: 0}]}}}",
            "1:45: defaults.policy.limits.rate[0].limit: `0` is out of range; write a whole number from 1 to 1000000",
        ),
        (
            "defaults: {policy: {limits: {rate: [{limit: 1, by: user}]}}}",
            "1:52: defaults.policy.limits.rate[0].by: `user` is nothing to count by; write `destination`, `pod` or `header:NAME`",
        ),
        (
            "defaults: {policy: {limits: {rate: [{limit: 1, shared: true}]}}}",
            "1:56: defaults.policy.limits.rate[0].shared: needs a place where agents count together; add `agent: {redis: \"redis://HOST:PORT\"}`, or remove it",
        ),
        (
            "defaults: {policy: {limits: {rate: [{limit: 1, follow: [{factor: 0.5}]}]}}}",
            "1:57: defaults.policy.limits.rate[0].follow[0]: needs one of `failureRatio`, `responseTime` and `requests`; write a mapping such as `{failureRatio: 0.2, factor: 0.5}`",
        ),
        (
            "defaults: {policy: {critical: [pay]}}",
            "1:32: defaults.policy.critical[0]: `pay` is neither; write `path:/PREFIX` or `header:NAME`",
        ),
        (
            "defaults: {policy: {fallback: {destination: other}}}",
            "1:45: defaults.policy.fallback.destination: `other` is no other destination of the file; write the `name` of another destination of the file",
        ),
        (
            "defaults: {policy: {fallback: {status: 99}}}",
            "1:40: defaults.policy.fallback.status: `99` is out of range; write a status from 200 to 599",
        ),
        (
            "agent: {redis: cache}",
            "1:16: agent.redis: `cache` is not the URL of a Redis server; write a URL such as \"redis://127.0.0.1:6379\" (without TLS)",
        ),
    ]);
    check_pod(&[
        (
            "overload: {concurrency: 0}",
            "4:29: pods[0].overload.concurrency: `0` is out of range; write a whole number from 1 on",
        ),
        (
            "overload: {queue: {maxWait: 10ms, minWait: 20ms}}",
            "4:48: pods[0].overload.queue.minWait: `20ms` is out of range; write a duration from 1ms to `maxWait` such as `5ms`",
        ),
        (
            "overload: {admission: {priorityHeader: 'a b'}}",
            "4:44: pods[0].overload.admission.priorityHeader: `a b` is not the name of a header; write the name of a header",
        ),
    ]);
}
