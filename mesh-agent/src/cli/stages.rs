//! How the stages of a request look, wherever they are drawn in a terminal: each has a character of its own, so
//! that they can be told apart without colours.

use std::collections::BTreeMap;

use crate::{admin::latency::FigureTimes, latency::Stage};

/// How a stage is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What it is filled with. From the characters that every terminal's font has.
    pub fill: char,
    /// Its colour: which of the terminal's own 16.
    pub colour: u8,
}

/// How `stage` is drawn.
pub const fn look(stage: Stage) -> Look {
    let (fill, colour) = match stage {
        Stage::Client => ('·', 7),
        Stage::Queue => ('░', 3),
        Stage::Mesh => ('▓', 5),
        Stage::Retries => ('×', 1),
        Stage::Connect => ('+', 6),
        Stage::Network => ('≈', 4),
        Stage::Server => ('█', 2),
        Stage::Transfer => ('=', 8),
    };
    Look { fill, colour }
}

/// How long each stage took at one quantile, in microseconds.
pub fn at(
    times: &BTreeMap<String, FigureTimes>,
    quantile: fn(&FigureTimes) -> f64,
) -> [f64; Stage::ALL.len()] {
    Stage::ALL.map(|stage| times.get(stage.name()).map_or(0.0, quantile))
}

/// Shares `width` cells out by `values`: each is off by less than a cell, and together they are `width`, or
/// none if there is nothing to share out.
pub fn split<const N: usize>(values: &[f64; N], width: usize) -> [usize; N] {
    let sum: f64 = values.iter().sum();
    let mut cells = [0; N];
    if sum <= 0.0 {
        return cells;
    }
    let exact = values.map(|value| value / sum * width as f64);
    for (cells, exact) in cells.iter_mut().zip(exact) {
        *cells = exact as usize;
    }
    // What is left goes to those that lost most by rounding down.
    let mut by_loss: [usize; N] = std::array::from_fn(|index| index);
    by_loss.sort_by(|one, other| exact[*other].fract().total_cmp(&exact[*one].fract()));
    let left = width.saturating_sub(cells.iter().sum());
    for index in by_loss.into_iter().take(left) {
        cells[index] += 1;
    }
    cells
}

/// The stage that took longest, and its share of the time, 0 to 1; `None` if none took any.
pub fn slowest(values: &[f64; Stage::ALL.len()]) -> Option<(Stage, f64)> {
    let sum: f64 = values.iter().sum();
    let all = Stage::ALL.into_iter().zip(values);
    let (stage, longest) = all.max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    (*longest > 0.0).then(|| (stage, longest / sum))
}

/// A time in microseconds, for people: three digits and a unit.
pub fn time(micros: f64) -> String {
    let (value, unit) = match micros {
        // Shorter than the clock tells apart.
        ..0.05 => return "0".to_owned(),
        ..999.5 => (micros, "µs"),
        ..999_500.0 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    match value {
        ..9.995 if unit != "µs" => format!("{value:.2}{unit}"),
        ..99.95 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

/// A share from 0 to 1, for people.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0%".to_owned(),
        ..0.5 => "<1%".to_owned(),
        percent => format!("{percent:.0}%"),
    }
}

/// What came from outside (a path, a method), without what a terminal would obey.
pub fn plain(text: &str) -> String {
    let is_obeyed = |it: char| {
        it.is_control()
            || matches!(it, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(is_obeyed, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_stage_has_a_character_and_a_colour_of_its_own() {
        let fills: HashSet<char> = Stage::ALL.map(|it| look(it).fill).into();
        let colours: HashSet<u8> = Stage::ALL.map(|it| look(it).colour).into();
        assert_eq!((fills.len(), colours.len()), (8, 8));
    }

    proptest! {
        #[test]
        fn a_width_is_shared_out_whole(values: [u32; 8], width in 0..500_usize) {
            let values = values.map(f64::from);
            let sum: f64 = values.iter().sum();
            let cells = split(&values, width);
            if sum > 0.0 {
                prop_assert_eq!(cells.iter().sum::<usize>(), width);
                for (cells, value) in cells.iter().zip(values) {
                    let exact = value / sum * width as f64;
                    prop_assert!((*cells as f64 - exact).abs() <= 1.0, "{} for {}", cells, exact);
                }
            } else {
                prop_assert_eq!(cells, [0; 8]);
            }
        }
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let texts = [
            0.0, 0.6, 62.04, 99.96, 812.0, 999.6, 5_312.0, 53_120.0, 999_600.0, 12e6,
        ];
        let texts = texts.map(time);
        assert_eq!(
            texts,
            [
                "0", "0.6µs", "62.0µs", "100µs", "812µs", "1.00ms", "5.31ms", "53.1ms", "1.00s",
                "12.0s"
            ]
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(
            plain("/a\u{9b}31m\u{1b}[2J\u{202e}b"),
            "/a\u{fffd}31m\u{fffd}[2J\u{fffd}b"
        );
        assert_eq!(plain("/café"), "/café");
    }
}
