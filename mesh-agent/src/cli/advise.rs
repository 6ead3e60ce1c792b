//! `mesh-agent advise`.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use super::{Output, Reading, output};
use crate::{
    admin::{client, model::Destination},
    policy::advice::{Advice, FEWEST, Seen, advise},
};

/// Proposes a policy, by what was seen.
#[derive(Debug, Args)]
pub struct Advise {
    /// The name of a destination; without it, all
    destination: Option<String>,
    #[command(flatten)]
    reading: Reading,
}

impl Advise {
    /// Prints what the policies of destinations could be, with the reasons.
    pub fn run(&self) -> anyhow::Result<()> {
        let socket = &self.reading.admin_socket;
        let all: Vec<Destination> = client::get(socket, "/destinations")?;
        let is_wanted = |it: &&Destination| {
            self.destination
                .as_ref()
                .is_none_or(|name| *name == it.name)
        };
        let wanted: Vec<&Destination> = all.iter().filter(is_wanted).collect();
        if let Some(name) = &self.destination {
            ensure!(
                !wanted.is_empty(),
                "the agent knows no destination `{name}`: see `mesh-agent destinations`"
            );
        }
        if self.reading.output == Output::Json {
            let all: Vec<_> = wanted.iter().map(|it| as_json(it)).collect();
            return Ok(output::json(&all)?);
        }
        for destination in wanted {
            let text = match seen(destination) {
                Some(seen) => as_yaml(&destination.name, &seen),
                None => format!("# {}: nothing was answered yet", destination.name),
            };
            output::line(&text)?;
        }
        Ok(())
    }
}

fn seen(destination: &Destination) -> Option<Seen> {
    let times = destination.seen.times?;
    let tries = destination.endpoints.iter();
    let (requests, failed) = tries.fold((0, 0), |(tries, failed), it| {
        (tries + it.tries, failed + it.failed)
    });
    Some(Seen {
        requests,
        failed,
        p50: Duration::from_secs_f64(times.p50),
        p99: Duration::from_secs_f64(times.p99),
        p999: Duration::from_secs_f64(times.p999),
        most_active: destination.seen.most_active,
        over: Duration::from_secs_f64(destination.seen.seconds),
    })
}

/// What was seen, in a line.
fn summary(seen: &Seen) -> String {
    let share = seen.failed as f64 / seen.requests.max(1) as f64 * 100.0;
    format!(
        "{} requests in {:.0?}, {share:.1}% failed; p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}; {} at once at most",
        seen.requests, seen.over, seen.p50, seen.p99, seen.p999, seen.most_active
    )
}

fn as_yaml(name: &str, seen: &Seen) -> String {
    let head = format!("# {name}: {}", summary(seen));
    let Some(advice) = advise(seen) else {
        return format!("{head}\n# too few to go by: {FEWEST} are needed");
    };
    let Advice {
        per_try,
        request,
        attempts,
        failure_ratio,
        slow,
        minimum_calls,
        requests,
    } = advice;
    let lines = [
        ("policy:".to_owned(), None),
        ("  timeouts:".to_owned(), None),
        (format!("    perTry: {}", span(per_try.0)), Some(per_try.1)),
        (format!("    request: {}", span(request.0)), Some(request.1)),
        ("  retries:".to_owned(), None),
        (format!("    attempts: {}", attempts.0), Some(attempts.1)),
        ("  breaker:".to_owned(), None),
        (
            format!("    failureRatio: {}", failure_ratio.0),
            Some(failure_ratio.1),
        ),
        (
            format!("    slowCall: {{threshold: {}}}", span(slow.0)),
            Some(slow.1),
        ),
        (
            format!("    minimumCalls: {}", minimum_calls.0),
            Some(minimum_calls.1),
        ),
        ("  limits:".to_owned(), None),
        (format!("    requests: {}", requests.0), Some(requests.1)),
    ];
    let lines = lines.map(|(line, why)| match why {
        Some(why) => format!("{line:<36} # {why}"),
        None => line,
    });
    format!("{head}\n{}", lines.join("\n"))
}

fn as_json(destination: &Destination) -> serde_json::Value {
    let seen = seen(destination);
    let advice = seen.as_ref().and_then(advise);
    let value = |value: serde_json::Value, why: &str| json!({"value": value, "why": why});
    json!({
        "destination": destination.name,
        "seen": seen.as_ref().map(summary),
        "advice": advice.map(|it| json!({
            "timeouts.perTry": value(json!(span(it.per_try.0)), &it.per_try.1),
            "timeouts.request": value(json!(span(it.request.0)), &it.request.1),
            "retries.attempts": value(json!(it.attempts.0), &it.attempts.1),
            "breaker.failureRatio": value(json!(it.failure_ratio.0), &it.failure_ratio.1),
            "breaker.slowCall.threshold": value(json!(span(it.slow.0)), &it.slow.1),
            "breaker.minimumCalls": value(json!(it.minimum_calls.0), &it.minimum_calls.1),
            "limits.requests": value(json!(it.requests.0), &it.requests.1),
        })),
    })
}

/// As the configuration has it.
fn span(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_is_printed_can_be_pasted() {
        let seen = Seen {
            requests: 5_000,
            failed: 20,
            p50: Duration::from_micros(800),
            p99: Duration::from_millis(12),
            p999: Duration::from_millis(2_500),
            most_active: 4,
            over: Duration::from_mins(10),
        };
        let yaml = as_yaml("web", &seen);
        let indented = yaml.replace('\n', "\n    ");
        let file = format!("destinations:\n  - name: web\n    hosts: [web]\n    {indented}\n");
        let loaded =
            config::parse(&file, "mesh.yaml").unwrap_or_else(|error| panic!("{error}\n{file}"));
        let policy = &loaded.config.destinations[0].policy;
        assert_eq!(policy.limits.requests, Some(10));
        assert!(policy.timeouts.per_try > Some(config::Timespan::from_millis(2_500)));
        let few = as_yaml(
            "web",
            &Seen {
                requests: 10,
                ..seen
            },
        );
        assert!(few.lines().all(|line| line.starts_with('#')), "{few}");
    }
}
