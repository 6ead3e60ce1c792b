//! Limits that follow the load of what they protect.

/// Lowers a limit while something is too high.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// What is looked at.
    pub signal: Signal,
    /// The rule applies while the signal is above this, in the signal's unit.
    pub above: f64,
    /// The limit is then multiplied by this: above 0, up to 1.
    pub factor: f64,
}

/// Something that tells how a destination or a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Share of the requests that failed lately, from 0 to 1.
    FailureRatio,
    /// How long requests took lately, in seconds.
    ResponseTime,
    /// How many are under way.
    InFlight,
}

/// The signals now, in the units of [`Signal`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// See [`Signal::FailureRatio`].
    pub failure_ratio: f64,
    /// See [`Signal::ResponseTime`].
    pub response_time: f64,
    /// See [`Signal::InFlight`].
    pub in_flight: f64,
}

impl Load {
    fn of(&self, signal: Signal) -> f64 {
        match signal {
            Signal::FailureRatio => self.failure_ratio,
            Signal::ResponseTime => self.response_time,
            Signal::InFlight => self.in_flight,
        }
    }
}

/// What limits are to be multiplied by: the smallest factor of the rules that apply, 1 if none does.
pub fn factor(rules: &[Rule], load: &Load) -> f64 {
    let apply = rules
        .iter()
        .filter(|rule| load.of(rule.signal) > rule.above);
    apply.map(|rule| rule.factor).fold(1.0, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [Rule; 4] = [
        rule(Signal::FailureRatio, 0.1, 0.5),
        rule(Signal::FailureRatio, 0.5, 0.1),
        rule(Signal::ResponseTime, 2.0, 0.3),
        rule(Signal::InFlight, 100.0, 0.8),
    ];

    const fn rule(signal: Signal, above: f64, factor: f64) -> Rule {
        Rule {
            signal,
            above,
            factor,
        }
    }

    #[test]
    fn the_strictest_rule_that_applies_counts() {
        let at = |failure_ratio, response_time, in_flight| {
            let load = Load {
                failure_ratio,
                response_time,
                in_flight,
            };
            (factor(&RULES, &load) * 10.0).round() as u32
        };
        assert_eq!(at(0.1, 2.0, 100.0), 10, "none is above");
        assert_eq!(at(0.11, 0.0, 0.0), 5);
        assert_eq!(at(0.51, 0.0, 0.0), 1);
        assert_eq!(at(0.11, 2.1, 0.0), 3);
        assert_eq!(at(0.0, 0.0, 101.0), 8);
        assert_eq!(at(0.11, 0.0, 101.0), 5);
        assert_eq!(at(f64::NAN, f64::NAN, f64::NAN), 10, "nothing known yet");
    }

    #[test]
    fn without_rules_limits_stay() {
        let all = factor(&[], &Load::default()).to_bits();
        assert_eq!(all, 1.0_f64.to_bits());
    }
}
