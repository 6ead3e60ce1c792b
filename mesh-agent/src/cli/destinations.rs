//! `mesh-agent destinations`.

use super::{Output, Reading, output};
use crate::admin::{
    client,
    model::{Breaker, Destination, Endpoint},
};
use crate::proxy::Reason;

/// Prints the destinations of the running agent, a line for each server.
pub fn run(reading: &Reading) -> anyhow::Result<()> {
    let destinations: Vec<Destination> = client::get(&reading.admin_socket, "/destinations")?;
    if reading.output == Output::Json {
        return Ok(output::json(&destinations)?);
    }
    let guarded: Vec<&Destination> = destinations.iter().filter(|it| is_guarded(it)).collect();
    let mut protection = output::table([
        "DESTINATION",
        "BREAKER",
        "CALLS",
        "FAILED",
        "SLOW",
        "WHY",
        "PROBE IN",
        "REQUESTS",
        "CONNECTIONS",
        "REFUSED",
        "WOULD REFUSE",
    ]);
    for destination in &guarded {
        protection.add_row(guard(destination));
    }
    let is_any_guarded = !guarded.is_empty();
    let mut table = output::table([
        "DESTINATION",
        "ACTIVE",
        "ANSWERED",
        "RETRIES",
        "BY THE AGENT",
        "SERVER",
        "TRIES",
        "FAILED",
        "STATE",
    ]);
    for destination in &destinations {
        let mut of_all = [
            destination.name.clone(),
            destination.active.to_string(),
            counts(&destination.answered),
            retries(destination),
            counts(&destination.own_answers),
        ];
        for server in &destination.endpoints {
            let of_server = [
                server.address.to_string(),
                server.tries.to_string(),
                server.failed.to_string(),
                state(server),
            ];
            table.add_row(of_all.into_iter().chain(of_server));
            // What is the destination's is said once.
            of_all = Default::default();
        }
    }
    output::print_table(&table)?;
    if is_any_guarded {
        output::print_table(&protection)?;
    }
    Ok(())
}

/// Whether anything is to be said of what keeps it from being asked too much.
fn is_guarded(destination: &Destination) -> bool {
    destination.breaker.is_some()
        || destination.throttled.is_some()
        || destination.limits.requests.is_some()
        || destination.limits.connections.is_some()
        || !destination.would_refuse.is_empty()
        || destination.own_answers.keys().any(|code| is_refusal(code))
}

/// What keeps it from being asked too much, as a line of the second table.
fn guard(destination: &Destination) -> [String; 11] {
    let none = || "-".to_owned();
    let breaker = destination.breaker.as_ref();
    let number = |of: fn(&Breaker) -> u32| breaker.map_or_else(none, |it| of(it).to_string());
    let refused = destination.own_answers.iter();
    let refused = refused.filter(|(code, _)| is_refusal(code));
    let refused = refused.map(|(reason, count)| (reason.clone(), *count));
    let limits = destination.limits;
    [
        destination.name.clone(),
        breaker.map_or_else(none, |it| {
            let observes = if it.observes { " (observes)" } else { "" };
            format!("{}{observes}", it.state)
        }),
        number(|it| it.calls),
        number(|it| it.failed),
        number(|it| it.slow),
        breaker.map_or_else(none, why),
        breaker
            .and_then(|it| it.probe_in_seconds)
            .map_or_else(none, output::seconds),
        limits
            .requests
            .map_or_else(none, |most| format!("{} of {most}", destination.active)),
        limits.connections.map_or_else(none, |it| {
            format!("{} of {}, {} wait", it.used, it.most, it.waiting)
        }),
        counts(&refused.collect()),
        counts(&destination.would_refuse),
    ]
}

/// Whether this is the code of a request that was not let through.
fn is_refusal(code: &str) -> bool {
    let mut reasons = Reason::ALL.iter();
    reasons.any(|reason| reason.is_protection() && reason.code() == code)
}

/// Why it opened last, and when.
fn why(breaker: &Breaker) -> String {
    match (&breaker.why, breaker.opened_seconds_ago) {
        (Some(why), Some(ago)) => format!("{why}, {} ago", output::seconds(ago)),
        _ => "-".to_owned(),
    }
}

fn state(server: &Endpoint) -> String {
    match server.ejected_for_seconds {
        _ if server.is_down => "down by health check".to_owned(),
        Some(left) => format!("out for {}", output::seconds(left)),
        None => "in rotation".to_owned(),
    }
}

/// Those that are not zero.
fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let counts = counts.iter().filter(|(_, count)| **count > 0);
    let texts: Vec<String> = counts
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if texts.is_empty() {
        "-".to_owned()
    } else {
        texts.join(", ")
    }
}

fn retries(destination: &Destination) -> String {
    match (destination.retries, destination.retries_over_budget) {
        (retries, 0) => retries.to_string(),
        (retries, over) => format!("{retries} ({over} over budget)"),
    }
}
