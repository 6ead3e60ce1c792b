//! What a caller remembers of the level that a server told it, so that what would be refused there need not
//! be sent: the collaborative part of DAGOR.

use std::time::{Duration, Instant};

use crate::policy::priority::Priority;

/// What was told counts for so long.
const VALID: Duration = Duration::from_secs(2);
/// One of those that would be refused is sent in so long,
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// and at least one of so many: the most that a probe may stand for.
pub const MOST_STANDS_FOR: u16 = 100;

/// What one server told last. Every answer of a server in overload tells its level, so while requests are
/// answered it is known to within a response time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToldLevel {
    told: Option<Told>,
    /// Refused since the last probe.
    refused: u16,
    /// When the last probe was sent, or the first level told.
    probed: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Told {
    level: u16,
    at: Instant,
}

/// Whether to send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send it.
    Admitted,
    /// Send it although the server would have refused it when it was heard of last, to hear of it again.
    Probe {
        /// It and those refused since the last one, from 1 to [`MOST_STANDS_FOR`]. The server should know
        /// it ([`Admission::admits`](super::Admission::admits)): it sees none of the others.
        stands_for: u16,
    },
    /// The server would refuse it.
    Refused,
}

impl ToldLevel {
    /// The server said that it admits requests up to this [ordinal](Priority::ordinal); [`u16::MAX`] stands
    /// for all.
    pub fn told(&mut self, level: u16, now: Instant) {
        if self.level(now).is_none() {
            self.refused = 0;
            self.probed = Some(now);
        }
        self.told = (level < u16::MAX).then_some(Told { level, at: now });
    }

    /// What was told lately; none if all are admitted.
    pub fn level(&self, now: Instant) -> Option<u16> {
        self.told
            .filter(|told| now.saturating_duration_since(told.at) < VALID)
            .map(|told| told.level)
    }

    /// Whether to send a request. Critical ones always.
    pub fn ask(&mut self, priority: Priority, now: Instant) -> Answer {
        let Some(level) = self.level(now) else {
            return Answer::Admitted;
        };
        if priority.is_critical() || priority.ordinal() <= level {
            return Answer::Admitted;
        }
        let is_due = self
            .probed
            .is_none_or(|probed| now.saturating_duration_since(probed) >= PROBE_INTERVAL);
        if is_due || self.refused + 1 >= MOST_STANDS_FOR {
            let stands_for = self.refused + 1;
            self.refused = 0;
            self.probed = Some(now);
            return Answer::Probe { stands_for };
        }
        self.refused += 1;
        Answer::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Priority = Priority {
        business: 32,
        user: 0,
    };

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn what_was_told_counts_for_two_seconds() {
        let mut told = ToldLevel::default();
        let start = Instant::now();
        assert_eq!(told.ask(LOW, start), Answer::Admitted, "nothing told");
        told.told(LOW.ordinal() - 1, start);
        assert_eq!(told.ask(LOW, start), Answer::Refused);
        assert_eq!(told.level(start), Some(LOW.ordinal() - 1));
        let last = start + milliseconds(1999);
        assert!(matches!(told.ask(LOW, last), Answer::Probe { .. }));
        assert_eq!(told.ask(LOW, last), Answer::Refused);
        assert_eq!(told.ask(LOW, start + VALID), Answer::Admitted);
        assert_eq!(told.level(start + VALID), None);
    }

    #[test]
    fn told_again_it_counts_anew() {
        let mut told = ToldLevel::default();
        let start = Instant::now();
        told.told(200, start);
        told.told(200, start + milliseconds(1500));
        assert_eq!(told.level(start + milliseconds(3000)), Some(200));
        told.told(u16::MAX, start + milliseconds(1600));
        assert_eq!(told.level(start + milliseconds(1600)), None);
        assert_eq!(
            told.ask(LOW, start + milliseconds(1600)),
            Answer::Admitted,
            "all are"
        );
    }

    #[test]
    fn the_told_level_itself_and_critical_ones_are_admitted() {
        let mut told = ToldLevel::default();
        let now = Instant::now();
        told.told(LOW.ordinal(), now);
        assert_eq!(told.ask(LOW, now), Answer::Admitted);
        let next = Priority { user: 1, ..LOW };
        assert_eq!(told.ask(next, now), Answer::Refused);
        told.told(0, now);
        let critical = Priority {
            business: 0,
            user: 127,
        };
        assert_eq!(told.ask(critical, now), Answer::Admitted);
    }

    /// Ten in a second if there are few, one in a hundred if there are many; they stand for all.
    #[test]
    fn probes_are_few_and_stand_for_all() {
        for (gap, seconds, expected) in [(20_000, 1, 10), (10, 1, 1000)] {
            let mut told = ToldLevel::default();
            let start = Instant::now();
            told.told(300, start);
            let (mut sent, mut probes, mut stood_for) = (0, 0, 0);
            for index in 1..=seconds * 1_000_000 / gap {
                let now = start + Duration::from_micros(index * gap);
                sent += 1;
                match told.ask(LOW, now) {
                    Answer::Probe { stands_for } => {
                        assert!((1..=MOST_STANDS_FOR).contains(&stands_for));
                        probes += 1;
                        stood_for += u64::from(stands_for);
                    }
                    answer => assert_eq!(answer, Answer::Refused),
                }
            }
            assert_eq!(probes, expected);
            assert_eq!(stood_for, sent);
        }
    }

    #[test]
    fn telling_the_level_again_does_not_put_off_the_probe() {
        let mut told = ToldLevel::default();
        let start = Instant::now();
        let mut probes = 0;
        for index in 0..100 {
            let now = start + milliseconds(index * 10);
            told.told(300, now);
            probes += u32::from(told.ask(LOW, now) != Answer::Refused);
        }
        assert_eq!(probes, 9);
    }
}
