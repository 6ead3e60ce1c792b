use proptest::prelude::*;

use super::*;

fn stamp(moment: Moment, end: u64, at: u64) -> TransmitStamp {
    TransmitStamp {
        moment,
        key: end.wrapping_sub(1) as u32,
        stamps: Stamps {
            software: Some(Nanos(at)),
            hardware: None,
        },
    }
}

/// Of a card, that a write left.
fn by_card(end: u64, at: u64) -> TransmitStamp {
    TransmitStamp {
        stamps: Stamps {
            software: None,
            hardware: Some(HardwareNanos(at)),
        },
        ..stamp(Moment::Sent, end, 0)
    }
}

#[test]
fn software_and_hardware_stamps_of_one_write_come_apart() {
    let mut log = TransmitLog::default();
    log.wrote(10, Nanos(1), Asked::SENT);
    log.stamped(stamp(Moment::Sent, 10, 2));
    log.stamped(by_card(10, 7));
    let write = log.last_since(0).unwrap();
    assert_eq!(write.sent, Some(Nanos(2)));
    assert_eq!(write.sent_by_card, Some(HardwareNanos(7)));
    assert_eq!(log.take_counts().matched, 2);
}

#[test]
fn what_is_handed_on_by_a_bridge_is_not_sent_again() {
    let mut log = TransmitLog::default();
    log.wrote(10, Nanos(1), Asked::SENT);
    let again = |log: &TransmitLog| log.last_since(0).and_then(|write| write.sent_again);
    for (at, expected) in [(2, None), (3_000, None), (200_000_000, Some(200_000_000))] {
        log.stamped(stamp(Moment::Sent, 10, at));
        assert_eq!(again(&log), expected.map(Nanos));
    }
    log.stamped(stamp(Moment::Sent, 10, 600_000_000));
    assert_eq!(again(&log), Some(Nanos(600_000_000)), "the last time");
    assert_eq!(log.last_since(0).unwrap().sent, Some(Nanos(2)));
}

/// Over a loopback device, or past a card that stamps one packet at a time.
#[test]
fn who_waits_for_a_cards_stamp_in_vain_does_not_wait_for_long() {
    let mut log = TransmitLog::default();
    let asked = Asked::SENT.by_card();
    let later = |nanos: Duration| Nanos(1 + nanos.as_nanos() as u64);
    for end in 1..=100 {
        log.wrote(end, Nanos(1), asked);
        log.stamped(stamp(Moment::Sent, end, 2));
        log.forget(end);
    }
    assert_eq!(log.writes.len(), MOST_FOR_CARD);
    assert_eq!(log.missing(Nanos(2)), MOST_FOR_CARD as u32);
    assert_eq!(log.missing(later(CARD_LATE)), 0);
    assert!(log.has_no_card());
    // One that comes late is of what was written all the same.
    log.stamped(by_card(100, 7));
    assert!(!log.has_no_card(), "it was late");
    assert_eq!((log.counts.again, log.counts.unmatched), (0, 0));
}

#[test]
fn what_the_peer_does_not_acknowledge_is_missing_for_good_and_the_rest_is_not() {
    let mut log = TransmitLog::default();
    log.wrote(1, Nanos(0), Asked::WHOLE_WAY);
    log.wrote(2, Nanos(0), Asked::NOTHING);
    assert_eq!(log.missing(Nanos(0)), 3);
    assert_eq!(log.missing(Nanos(KERNEL_LATE.as_nanos() as u64)), 1);
}

#[test]
fn what_was_pushed_out_is_known_to_have_been_written() {
    let mut log = TransmitLog::default();
    for end in 1..=MOST as u64 + 1 {
        log.wrote(end, Nanos(0), Asked::SENT);
    }
    log.stamped(stamp(Moment::Sent, 1, 2));
    assert_eq!((log.counts.again, log.counts.unmatched), (1, 0));
}

#[test]
fn what_is_done_is_forgotten_and_what_is_awaited_is_not() {
    let mut log = TransmitLog::default();
    for (end, asked) in [(10, Asked::SENT), (20, Asked::WHOLE_WAY), (30, Asked::SENT)] {
        log.wrote(end, Nanos(1), asked);
        log.stamped(stamp(Moment::Sent, end, 2));
    }
    log.forget(20);
    let known = |log: &TransmitLog| [10, 20, 30].map(|end| log.until(end).is_some());
    assert_eq!(known(&log), [false, true, true], "20 is not acknowledged");
    log.stamped(stamp(Moment::Acknowledged, 20, 3));
    log.forget(20);
    assert_eq!(known(&log), [false, false, true]);
    // The first segment is sent again; the last stamp is of nothing that was ever written.
    log.stamped(stamp(Moment::Sent, 10, 4));
    log.stamped(stamp(Moment::Sent, 40, 4));
    let counts = Counts {
        matched: 4,
        again: 1,
        unmatched: 1,
    };
    assert_eq!(log.take_counts(), counts);
}

proptest! {
    /// A kernel that takes writes in part, joins them, sends segments again and gives stamps late and in
    /// any order: what the log says is what the kernel did, whatever the offset began with.
    #[test]
    fn every_stamp_finds_its_write(
        begin in prop_oneof![Just(0_u64), (u64::from(u32::MAX) - 500)..(u64::from(u32::MAX) + 500)],
        lengths in prop::collection::vec((1..300_u64, 0..4_u8), 1..MOST),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..300),
        strange in any::<u32>(),
    ) {
        let mut log = TransmitLog::default();
        let mut ends = Vec::new();
        let mut end = begin;
        for (number, (length, joined)) in lengths.iter().enumerate() {
            end += length;
            log.wrote(end, Nanos(number as u64), Asked::WHOLE_WAY);
            // What goes out with the next write has no stamp of its own.
            ends.push((end, *joined == 0 && number + 1 < lengths.len()));
        }
        let mut pending: Vec<(u64, Moment)> = ends
            .iter()
            .filter(|(_, joined)| !joined)
            .flat_map(|(end, _)| {
                [Moment::Scheduled, Moment::Sent, Moment::Acknowledged]
                    .map(|point| (*end, point))
            })
            .collect();
        let all = pending.len();
        let mut first: Vec<(u64, Moment, u64)> = Vec::new();
        let mut again = 0;
        for (time, index) in order.iter().enumerate() {
            let Some(&(end, point)) = pending.get(index.index(all)) else { continue };
            let time = time as u64 + 1;
            log.stamped(stamp(point, end, time));
            if first.iter().any(|seen| (seen.0, seen.1) == (end, point)) {
                again += 1;
            } else {
                first.push((end, point, time));
            }
        }
        pending.clear();
        let is_known = ends.iter().any(|(end, _)| end.wrapping_sub(1) as u32 == strange);
        if !is_known {
            log.stamped(TransmitStamp { key: strange, ..stamp(Moment::Sent, 1, 9) });
        }
        for write in &log.writes {
            let of = |point| {
                let mut seen = first.iter();
                seen.find(|seen| (seen.0, seen.1) == (write.end, point)).map(|seen| Nanos(seen.2))
            };
            prop_assert_eq!(write.scheduled, of(Moment::Scheduled));
            prop_assert_eq!(write.sent, of(Moment::Sent));
            prop_assert_eq!(write.acknowledged, of(Moment::Acknowledged));
        }
        prop_assert_eq!(log.last_since(begin).map(|write| write.end), Some(end));
        prop_assert_eq!(log.last_since(end), None);
        let counts = log.take_counts();
        prop_assert_eq!(counts.matched, first.len() as u64);
        prop_assert_eq!(counts.again, again);
        prop_assert_eq!(counts.unmatched, u64::from(!is_known));
    }
}
