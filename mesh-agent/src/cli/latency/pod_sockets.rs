//! `mesh-agent latency --pod-sockets`.

use anyhow::bail;

use crate::{
    admin::{
        client,
        pod_sockets::{PodSocket, PodSockets, Spread},
    },
    cli::{Output, Reading, output},
    config,
};

/// Prints what the kernel measured of the pods' own sockets, the slowest network first.
pub fn run(reading: &Reading) -> anyhow::Result<()> {
    let answer: PodSockets = client::get(&reading.admin_socket, "/pod-sockets")?;
    if reading.output == Output::Json {
        return Ok(output::json(&answer)?);
    }
    match answer.measured {
        Some(measured) if measured.measured != config::PodSockets::Off => {
            output::line(&format!("measured: {measured}"))?;
        }
        Some(measured) if measured.reason.is_some() => bail!("nothing is measured: {measured}"),
        _ => bail!(
            "nothing is measured of pods' own sockets: set `latency: {{podSockets: rtt}}` (or \
             `stamps`) and start the agent again"
        ),
    }
    let mut table = output::table([
        "POD",
        "DIRECTION",
        "DESTINATION",
        "CONNECTIONS",
        "SENT AGAIN",
        "ROUND TRIP p50",
        "p90",
        "p99",
        "TO DEVICE p50",
        "p99",
        "TO ACKNOWLEDGED p50",
        "p99",
    ]);
    for socket in &answer.sockets {
        table.add_row(row(socket));
    }
    Ok(output::print_table(&table)?)
}

fn row(socket: &PodSocket) -> [String; 12] {
    let time = |spread: &Option<Spread>, of: fn(&Spread) -> f64| {
        spread
            .as_ref()
            .map_or_else(|| "-".to_owned(), |it| short(of(it)))
    };
    // Smoothed ones hide what is rare.
    let about = if socket.is_round_trip_smoothed {
        "~"
    } else {
        ""
    };
    [
        socket.pod.clone(),
        socket.direction.to_string(),
        socket.destination.clone(),
        socket.connections.to_string(),
        socket.retransmits.to_string(),
        format!("{about}{}", time(&socket.round_trip, |it| it.p50)),
        time(&socket.round_trip, |it| it.p90),
        time(&socket.round_trip, |it| it.p99),
        time(&socket.to_device, |it| it.p50),
        time(&socket.to_device, |it| it.p99),
        time(&socket.to_acknowledged, |it| it.p50),
        time(&socket.to_acknowledged, |it| it.p99),
    ]
}

/// Seconds with three digits, as in `1.23ms`.
fn short(seconds: f64) -> String {
    let (value, unit) = match seconds {
        1.0.. => (seconds, "s"),
        0.001.. => (seconds * 1e3, "ms"),
        _ => (seconds * 1e6, "µs"),
    };
    let digits = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn times_are_three_digits_and_a_unit() {
        assert_eq!(short(0.000_004_2), "4.20µs");
        assert_eq!(short(0.010_4), "10.4ms");
        assert_eq!(short(0.25), "250ms");
        assert_eq!(short(1.07), "1.07s");
    }
}
