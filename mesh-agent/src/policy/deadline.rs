//! The one moment by which a request must be answered, and how callers write what is left of it.

use std::time::{Duration, Instant};

/// When a request must be answered, if ever. It can only come nearer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Never.
    pub const NONE: Self = Self(None);

    /// The same, but not later than `left` from `now`.
    #[must_use]
    pub fn within(self, left: Option<Duration>, now: Instant) -> Self {
        // A span too long for the clock is none.
        let other = left.and_then(|left| now.checked_add(left));
        Self(match (self.0, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        })
    }

    /// When it is.
    pub const fn at(self) -> Option<Instant> {
        self.0
    }

    /// What is left of it, zero when it has passed; `None` without one.
    pub fn left(self, now: Instant) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(now))
    }

    /// Whether it has passed.
    pub fn has_passed(self, now: Instant) -> bool {
        self.0.is_some_and(|at| at <= now)
    }
}

/// Reads `grpc-timeout`: 1 to 8 digits and a unit of `H`, `M`, `S`, `m`, `u` or `n`
/// (gRPC over HTTP/2, "Requests").
pub fn parse_grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let value: u64 = is_number.then(|| str::from_utf8(digits).ok()?.parse().ok())??;
    Some(match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Writes `grpc-timeout` in the finest unit that has room for it. What is cut off makes it shorter,
/// never longer.
pub fn grpc_timeout(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
    ];
    let nanoseconds = left.as_nanos();
    let fitting = units.iter().find(|(unit, _)| nanoseconds / unit <= MOST);
    fitting.map_or_else(
        || format!("{}H", (nanoseconds / 3_600_000_000_000).min(MOST)),
        |(unit, letter)| format!("{}{letter}", nanoseconds / unit),
    )
}

/// Reads a header that has whole milliseconds. Zero means that there is no limit, as in Envoy.
pub fn parse_milliseconds(text: &[u8]) -> Option<Duration> {
    let is_number = (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let value: u64 = is_number.then(|| str::from_utf8(text).ok()?.parse().ok())??;
    (value > 0).then_some(Duration::from_millis(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_the_specification_says() {
        let ms = Duration::from_millis;
        assert_eq!(parse_grpc_timeout(b"250m"), Some(ms(250)));
        assert_eq!(parse_grpc_timeout(b"1S"), Some(ms(1000)));
        assert_eq!(
            parse_grpc_timeout(b"99999999H").map(|it| it.as_secs()),
            Some(359_999_996_400)
        );
        for wrong in [
            "",
            "m",
            "1",
            "123456789m",
            "-1m",
            "+1m",
            "1.5S",
            "1 m",
            "1x",
            "0x1m",
        ] {
            assert_eq!(parse_grpc_timeout(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn milliseconds_are_whole_and_zero_is_no_limit() {
        assert_eq!(
            parse_milliseconds(b"1500"),
            Some(Duration::from_millis(1500))
        );
        for wrong in ["", "0", "-5", "1.5", "1s", " 1", "9999999999999999999"] {
            assert_eq!(parse_milliseconds(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_no_more_and_hardly_less(
            nanoseconds in prop_oneof![0..200_000_000_u64, any::<u64>()],
        ) {
            let left = Duration::from_nanos(nanoseconds);
            let text = grpc_timeout(left);
            prop_assert!(text.len() <= 9);
            let read = parse_grpc_timeout(text.as_bytes()).unwrap();
            prop_assert!(read <= left);
            prop_assert!(left.saturating_sub(read) <= left / 10_000 + Duration::from_secs(1));
        }

        /// Monotone: whatever is asked of it, it never moves away.
        #[test]
        fn a_deadline_only_comes_nearer(
            steps in prop::collection::vec((prop::option::of(0..10_000_u64), 0..500_u64), 1..20),
        ) {
            let mut now = Instant::now();
            let mut deadline = Deadline::NONE;
            for (left, passed) in steps {
                let nearer = deadline.within(left.map(Duration::from_millis), now);
                if let Some(before) = deadline.at() {
                    prop_assert!(nearer.at().is_some_and(|at| at <= before));
                }
                if let Some(left) = left {
                    prop_assert!(nearer.left(now).is_some_and(|it| it <= Duration::from_millis(left)));
                }
                deadline = nearer;
                now += Duration::from_millis(passed);
                prop_assert_eq!(deadline.has_passed(now), deadline.left(now) == Some(Duration::ZERO));
            }
        }
    }
}
