//! Against clocks whose relation is known.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
/// Some day of 2026.
const START: u64 = 1_795_000_000 * SECOND;

/// A card's clock that was `offset` ahead at [`START`], and gains `rate` parts of 10^9 from then on.
#[derive(Clone, Copy, Debug)]
struct Card {
    offset: i128,
    rate: i128,
}

impl Card {
    fn at(self, system: u64) -> HardwareNanos {
        let passed = i128::from(system) - i128::from(START);
        let shown = i128::from(system) + self.offset + passed * self.rate / BILLION;
        HardwareNanos(u64::try_from(shown).unwrap())
    }

    /// Reads it `inside` of 1000 parts into the window that begins at `system`.
    fn read(self, system: u64, window: u64, inside: u64) -> Reading {
        Reading {
            hardware: self.at(system + window * inside / 1000),
            system: Nanos(system + window / 2),
            window,
        }
    }
}

fn within(converted: Option<Converted>, truth: u64) -> bool {
    converted.is_some_and(|converted| converted.time.0.abs_diff(truth) <= converted.uncertainty)
}

/// Offsets as of a card that was never set, of one on TAI, and anything between.
fn cards() -> impl Strategy<Value = Card> {
    let offset = prop_oneof![
        Just(10_000 * BILLION - i128::from(START)),
        Just(37 * BILLION),
        -1_000_000_000_000_i128..1_000_000_000_000,
    ];
    (offset, -400_000..400_000_i128).prop_map(|(offset, rate)| Card { offset, rate })
}

proptest! {
    #[test]
    fn a_stamp_is_where_it_says_within_what_it_says(
        card in cards(),
        readings in prop::collection::vec((500_000_000..2 * SECOND, 1..50_000_u64, 0..=1000_u64), 1..6),
        back in 0..4 * SECOND,
        ahead in 0..4 * SECOND,
    ) {
        let mut relation = ClockRelation::default();
        let mut now = START;
        for &(pause, window, inside) in &readings {
            now += pause;
            relation.observe(card.read(now, window, inside));
        }
        let later = now + 60_000 + ahead;
        prop_assert!(within(relation.to_system(card.at(later)), later));
        if readings.len() > 1 {
            let earlier = now - back;
            prop_assert!(within(relation.to_system(card.at(earlier)), earlier));
        }
    }

    #[test]
    fn nothing_is_said_far_from_the_readings(card in cards(), far in 6 * SECOND..1000 * SECOND) {
        let mut relation = ClockRelation::default();
        relation.observe(card.read(START, 1000, 500));
        relation.observe(card.read(START + SECOND, 1000, 500));
        prop_assert_eq!(relation.to_system(card.at(START + SECOND + far)), None);
        prop_assert_eq!(relation.to_system(card.at(START - far)), None);
    }

    #[test]
    fn no_readings_and_no_stamp_make_it_panic(
        readings in prop::collection::vec(any::<(u64, u64, u64)>(), 0..8),
        stamp in any::<u64>(),
    ) {
        let mut relation = ClockRelation::default();
        for (hardware, system, window) in readings {
            relation.observe(Reading {
                hardware: HardwareNanos(hardware),
                system: Nanos(system),
                window,
            });
        }
        let _anything = relation.to_system(HardwareNanos(stamp));
    }

    #[test]
    fn after_a_clock_was_set_the_readings_of_before_do_not_count(
        card in cards(),
        step in prop_oneof![-100 * BILLION..-10_000_000, 10_000_000..100 * BILLION],
    ) {
        let mut relation = ClockRelation::default();
        for second in 0..3 {
            relation.observe(card.read(START + second * SECOND, 1000, 500));
        }
        let set = Card { offset: card.offset + step, ..card };
        relation.observe(set.read(START + 3 * SECOND, 1000, 500));
        // Of before: nobody knows when the clock was set.
        prop_assert_eq!(relation.to_system(HardwareNanos(set.at(START + 3 * SECOND).0 - 1_000_000)), None);
        let later = START + 3 * SECOND + SECOND / 2;
        prop_assert!(within(relation.to_system(set.at(later)), later));
    }
}

#[test]
fn without_a_reading_nothing_is_known() {
    let mut relation = ClockRelation::default();
    assert_eq!(relation.to_system(HardwareNanos(START)), None);
    let card = Card { offset: 0, rate: 0 };
    relation.observe(card.read(START, 1000, 0));
    assert!(relation.to_system(card.at(START + SECOND)).is_some());
    relation.forget();
    assert_eq!(relation.to_system(card.at(START + SECOND)), None);
}

/// The figures of an emulated card: windows of 500 ns.
#[test]
fn two_readings_a_second_apart_give_a_stamp_within_some_microseconds() {
    let card = Card {
        offset: -34_985,
        rate: 20_000,
    };
    let mut relation = ClockRelation::default();
    relation.observe(card.read(START, 500, 500));
    let alone = relation.to_system(card.at(START + SECOND)).unwrap();
    relation.observe(card.read(START + SECOND, 500, 500));
    let between = relation.to_system(card.at(START + SECOND / 2)).unwrap();
    let after = relation.to_system(card.at(START + 2 * SECOND)).unwrap();
    assert!(alone.uncertainty > 100_000, "{alone:?}");
    assert!(between.uncertainty < 3_000, "{between:?}");
    assert!(after.uncertainty < 6_000, "{after:?}");
}

#[test]
fn a_rate_that_changes_makes_it_less_sure() {
    let mut relation = ClockRelation::default();
    let steady = Card { offset: 0, rate: 0 };
    for second in 0..3 {
        relation.observe(steady.read(START + second * SECOND, 500, 500));
    }
    let before = relation
        .to_system(steady.at(START + 3 * SECOND))
        .unwrap()
        .uncertainty;
    // The system's clock is slewed by 100 parts in a million from the third reading on.
    let slewed = Card {
        offset: -200_000,
        rate: 100_000,
    };
    relation.observe(slewed.read(START + 3 * SECOND, 500, 500));
    let after = START + 4 * SECOND;
    let converted = relation.to_system(slewed.at(after)).unwrap();
    assert!(within(Some(converted), after), "{converted:?}");
    assert!(converted.uncertainty > 10 * before, "{converted:?}");
}

#[test]
fn of_several_clocks_only_those_that_agree_say_something() {
    let at = |time, uncertainty| Converted {
        time: Nanos(time),
        uncertainty,
    };
    assert_eq!(Converted::agreed([]), None);
    assert_eq!(Converted::agreed([at(1000, 10)]), Some(at(1000, 10)));
    // From 990 to 1010, and from 1000 to 1020.
    let both = Converted::agreed([at(1000, 10), at(1010, 10)]);
    assert_eq!(both, Some(at(1005, 15)));
    assert_eq!(Converted::agreed([at(1000, 10), at(1021, 10)]), None);
}
