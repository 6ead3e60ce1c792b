//! Levels: that they converge, recover, and keep the order of priorities.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::simulation::{LIMITS, LONG, Mix, SHORT, Seen, Simulation};
use crate::policy::{overload::Admission, priority::Priority};

const PER_SECOND: u32 = 1000;

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn of(business: u8, user: u8) -> Priority {
    Priority { business, user }
}

/// Runs each kind of overload for so long that levels have settled, and then for half a minute.
fn each_overload(check: impl Fn(&str, &mut Simulation, Seen)) {
    for queue in [SHORT, LONG] {
        for mix in [Mix::Many, Mix::Same] {
            for callers in [0, 1, 20] {
                for load in [1.5, 3.0, 10.0] {
                    let mut simulation = Simulation::new(PER_SECOND, queue, mix, callers);
                    simulation.run(load, 15);
                    let seen = simulation.run(load, 30);
                    let what = format!("{load} of {mix:?} by {callers} with {queue:?}: {seen:?}");
                    check(&what, &mut simulation, seen);
                }
            }
        }
    }
}

#[test]
fn as_many_are_admitted_as_can_be_served() {
    each_overload(|what, _, seen| {
        let capacity = f64::from(PER_SECOND * 30);
        let admitted = f64::from(seen.admitted) / capacity;
        assert!((0.9..=1.1).contains(&admitted), "{admitted} {what}");
        let served = f64::from(seen.served) / capacity;
        assert!(served >= 0.9, "{served} {what}");
        // But for those that wait at the end.
        assert!(seen.critical_served + 10 > seen.critical, "{what}");
    });
}

#[test]
fn callers_that_were_told_hardly_send_in_vain() {
    let mut simulation = Simulation::new(PER_SECOND, SHORT, Mix::Many, 20);
    simulation.run(10.0, 15);
    let seen = simulation.run(10.0, 30);
    // The probes: each caller ten in a second, or one in a hundred refused.
    let in_vain = seen.arrived - seen.admitted;
    assert!(in_vain < 30 * (20 * 10 + 90), "{seen:?}");
    assert!(seen.sent > 9 * seen.arrived / 2, "{seen:?}");
}

#[test]
fn after_the_overload_all_are_admitted_again() {
    each_overload(|what, simulation, _| {
        let mut seconds = 0;
        while simulation.admission.level() < u16::MAX {
            assert!(seconds < 12, "{what}");
            simulation.run(0.7, 1);
            seconds += 1;
        }
        let seen = simulation.run(0.7, 20);
        assert_eq!(simulation.admission.level(), u16::MAX);
        assert_eq!(seen.admitted, seen.sent, "{what}");
    });
}

#[test]
fn a_pause_ends_it_too() {
    let mut simulation = Simulation::new(PER_SECOND, SHORT, Mix::Many, 0);
    simulation.run(10.0, 15);
    assert!(simulation.admission.level() < 8191);
    simulation.run(0.0, 60);
    simulation.run(0.5, 2);
    assert_eq!(simulation.admission.level(), u16::MAX);
}

#[test]
fn without_overload_all_are_admitted() {
    let mut simulation = Simulation::new(PER_SECOND, SHORT, Mix::Many, 1);
    let seen = simulation.run(0.9, 60);
    assert_eq!(seen.arrived, seen.sent);
    // Uneven as it is, some come at a bad time.
    assert!(seen.served > seen.sent / 100 * 99, "{seen:?}");
}

/// One request of each user in one window. So many in a hundred of those admitted are not served, the others
/// after this wait.
fn window(admission: &mut Admission, wait: Duration, expired: u32, now: &mut Instant) -> u32 {
    let mut admitted = 0;
    for user in 0..=127 {
        admitted += u32::from(admission.admits(of(16, user), 1, &LIMITS, *now));
    }
    let expired = admitted * expired / 100;
    let served = admitted - expired;
    (0..served).for_each(|_| admission.waited(wait, *now));
    (0..expired).for_each(|_| admission.expired(Duration::ZERO, *now));
    // So long that also the pause after a cut is over.
    *now += milliseconds(1000);
    admission.admits(Priority::CRITICAL, 1, &LIMITS, *now);
    *now += wait;
    admitted
}

#[test]
fn it_lowers_fast_and_raises_slowly() {
    // A little more than the target, twice, and very much more.
    for (wait, expired, at_all, then) in [
        (20, 0, 128, 128),
        (21, 0, 128, 121),
        (40, 0, 128, 115),
        (900, 0, 128, 102),
        (0, 9, 128, 128),
        (0, 25, 128, 96),
        (0, 100, 128, 64),
    ] {
        let mut admission = Admission::new();
        let mut now = Instant::now();
        let wait = milliseconds(wait);
        // However well it went before.
        for _ in 0..5 {
            window(&mut admission, milliseconds(0), 0, &mut now);
        }
        assert_eq!(window(&mut admission, wait, expired, &mut now), at_all);
        assert_eq!(admission.view().mean_wait, wait);
        let is_cut = then < at_all;
        assert_eq!(admission.view().is_overloaded, is_cut);
        assert_eq!(admission.level() < u16::MAX, is_cut);
        let near_the_limit = milliseconds(10);
        let admitted = window(&mut admission, near_the_limit, 0, &mut now);
        assert!(admitted.abs_diff(then) <= 1, "{admitted} not {then}");
        if is_cut {
            let raised = window(&mut admission, near_the_limit, 0, &mut now);
            assert!((admitted..=admitted + 2).contains(&raised), "{raised}");
        }
    }
}

#[test]
fn with_many_requests_it_does_not_take_a_second() {
    for (count, window) in [(1_000, 1000), (50_000, 100), (5_000, 400)] {
        let mut admission = Admission::new();
        let start = Instant::now();
        for index in 0..count {
            let now = start + Duration::from_secs(1) * index / count;
            admission.admits(of(16, 0), 1, &LIMITS, now);
            admission.waited(milliseconds(50), now);
            let passed = now - start;
            let is_lowered = admission.level() < u16::MAX;
            assert_eq!(is_lowered, passed >= milliseconds(window), "{passed:?}");
        }
    }
}

#[test]
fn without_anything_waiting_it_raises_faster_and_faster() {
    let mut admission = Admission::new();
    let mut now = Instant::now();
    for _ in 0..3 {
        window(&mut admission, milliseconds(0), 50, &mut now);
    }
    let admitted = window(&mut admission, milliseconds(0), 0, &mut now);
    let mut windows = 0;
    while admission.level() < u16::MAX {
        window(&mut admission, milliseconds(0), 0, &mut now);
        windows += 1;
    }
    assert!(admitted <= 40, "{admitted}");
    assert!((4..=6).contains(&windows), "{windows} from {admitted}");
}

/// If fewer come in than go out, only time is needed.
#[test]
fn what_waits_already_is_no_reason_to_lower_further() {
    let mut admission = Admission::new();
    let mut now = Instant::now();
    window(&mut admission, milliseconds(900), 0, &mut now);
    let level = admission.level();
    for user in 0..=127 {
        if admission.admits(of(16, user), 1, &LIMITS, now) {
            admission.waited(milliseconds(900), now);
            admission.waited(milliseconds(900), now);
        }
    }
    now += milliseconds(1000);
    admission.admits(Priority::CRITICAL, 1, &LIMITS, now);
    assert!(admission.view().is_overloaded);
    assert_eq!(admission.level(), level);
}

#[test]
fn critical_ones_are_always_admitted() {
    let mut admission = Admission::new();
    let mut now = Instant::now();
    for index in 0..50_000_u32 {
        let critical = of(0, (index % 128) as u8);
        assert!(admission.admits(critical, 1, &LIMITS, now));
        admission.admits(of(1, 0), 1, &LIMITS, now);
        admission.waited(milliseconds(5000), now);
        now += milliseconds(1);
    }
    assert_eq!(admission.level(), 127, "nothing else is");
    assert!(!admission.admits(of(1, 0), 1, &LIMITS, now));
}

/// What a probe stands for counts: otherwise nothing would seem to be left to admit.
#[test]
fn probes_count_for_those_that_were_not_sent() {
    let mut levels = [1, 100].map(|stands_for| {
        let mut admission = Admission::new();
        let mut now = Instant::now();
        window(&mut admission, milliseconds(0), 100, &mut now);
        for user in 0..=127 {
            let weight = if user < 64 { 1 } else { stands_for };
            if user < 64 || user % 16 == 0 {
                admission.admits(of(16, user), weight, &LIMITS, now);
            }
        }
        for _ in 0..3 {
            now += milliseconds(1000);
            for user in (0..64).chain([70, 90, 110, 120]) {
                let weight = if user < 64 { 1 } else { stands_for };
                admission.admits(of(16, user), weight, &LIMITS, now);
            }
        }
        admission.level()
    });
    levels.sort_unstable();
    assert_eq!(levels, [of(16, 70).ordinal(), u16::MAX]);
}

proptest! {
    #[test]
    fn the_more_important_one_is_admitted_if_the_other_is(
        events in prop::collection::vec(
            ((0..64_u8, 0..128_u8), 1..20_u16, 0..60_u64, any::<bool>(), 0..20_u64),
            1..2000,
        ),
        pairs in prop::collection::vec(((0..64_u8, 0..128_u8), (0..64_u8, 0..128_u8)), 20),
    ) {
        let mut admission = Admission::new();
        let mut now = Instant::now();
        for (index, ((business, user), weight, wait, is_expired, passed)) in events.into_iter().enumerate() {
            now += milliseconds(passed);
            let priority = of(business, user);
            let level = admission.level();
            let is_admitted = admission.admits(priority, weight, &LIMITS, now);
            if admission.level() == level {
                prop_assert!(!is_admitted || priority.ordinal() <= level);
            }
            if is_admitted && is_expired {
                admission.expired(milliseconds(wait), now);
            } else if is_admitted {
                admission.waited(milliseconds(wait), now);
            }
            let (a, b) = pairs[index % pairs.len()];
            let (a, b) = (of(a.0, a.1), of(b.0, b.1));
            let [more, less] = [a.min(b), a.max(b)];
            let admits = |priority| admission.clone().admits(priority, 1, &LIMITS, now);
            if more != less && admits(less) {
                prop_assert!(admits(more), "{} but not {}", less, more);
            }
        }
    }
}
