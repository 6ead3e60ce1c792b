use proptest::prelude::*;

use super::*;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const BEGIN: u64 = 1_700_000_000 * 1_000_000_000;

/// How long each part of a request's way takes, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Parts {
    upload: u64,
    waited: u64,
    queue_in: u64,
    mesh_in: u64,
    retries: u64,
    connect: u64,
    there: u64,
    server: u64,
    back: u64,
    transfer: u64,
    queue_out: u64,
    mesh_out: u64,
    blocked: u64,
    held_up: u64,
    /// For how long the peer's kernel holds its acknowledgement back, at most until the answer.
    delayed: u64,
}

fn stamp(at: u64) -> Stamp {
    Stamp {
        at: Nanos(at),
        source: Source::Software,
        uncertainty: 0,
    }
}

/// The stamps of a way whose parts take so long.
fn way(parts: &Parts) -> Waypoints {
    let first = BEGIN;
    let last = first + parts.upload;
    let turn = last + parts.waited;
    let read = turn + parts.queue_in;
    let first_try = read + parts.mesh_in / 2;
    let last_try = first_try + parts.retries;
    let connected = last_try + parts.connect;
    let sent = connected + (parts.mesh_in - parts.mesh_in / 2);
    let acknowledged = sent + parts.there + parts.delayed.min(parts.server) + parts.back;
    let answered = sent + parts.there + parts.server + parts.back;
    let answered_last = answered + parts.transfer;
    let answer_read = answered_last + parts.queue_out + parts.held_up;
    let replied = answer_read + parts.mesh_out + parts.blocked;
    Waypoints {
        received_first: Arrival {
            stamp: stamp(first),
            read: Nanos(if parts.upload == 0 { read } else { first }),
        },
        received_last: Arrival {
            stamp: stamp(last),
            read: Nanos(read),
        },
        turn: (parts.waited > 0).then_some(Nanos(turn)),
        first_try: Nanos(first_try),
        last_try: Nanos(last_try),
        connected: Nanos(connected),
        written: Nanos(sent),
        scheduled: None,
        sent: stamp(sent),
        sent_again: None,
        acknowledged: Some(Nanos(acknowledged)),
        least_rtt: Some(parts.there + parts.back),
        answered_first: Arrival {
            stamp: stamp(answered),
            read: Nanos(answered),
        },
        answered_last: Arrival {
            stamp: stamp(answered_last),
            read: Nanos(answer_read),
        },
        answer_written: Nanos(replied),
        replied: stamp(replied),
        blocked: parts.blocked,
        held_up: parts.held_up,
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    prop::array::uniform15(0..50 * MILLI).prop_map(
        |[
            upload,
            waited,
            queue_in,
            mesh_in,
            retries,
            connect,
            there,
            server,
            back,
            transfer,
            queue_out,
            mesh_out,
            blocked,
            held_up,
            delayed,
        ]| Parts {
            upload,
            waited,
            queue_in,
            mesh_in,
            retries,
            connect,
            there,
            server,
            back,
            transfer,
            queue_out,
            mesh_out,
            blocked,
            held_up,
            delayed,
        },
    )
}

proptest! {
    /// Each part is found in its own stage, and nowhere else; together they are the whole.
    #[test]
    fn every_delay_is_in_its_own_stage(parts in parts()) {
        let stages = Stages::of(&way(&parts)).unwrap();
        let expected = [
            (Stage::Client, parts.upload + parts.waited + parts.blocked + parts.held_up),
            (Stage::Queue, parts.queue_in + parts.queue_out),
            (Stage::Mesh, parts.mesh_in + parts.mesh_out),
            (Stage::Retries, parts.retries),
            (Stage::Connect, parts.connect),
            (Stage::Network, parts.there + parts.back),
            (Stage::Server, parts.server),
            (Stage::Transfer, parts.transfer),
        ];
        for (stage, took) in expected {
            prop_assert_eq!(stages.get(stage), took, "{}", stage.name());
        }
        let sum: u64 = Stage::ALL.iter().map(|stage| stages.get(*stage)).sum();
        prop_assert_eq!(sum, stages.total);
    }

    /// Whatever the stamps are, there is no panic, and no stage is longer than all of them can be.
    #[test]
    fn strange_stamps_give_no_strange_stages(
        parts in parts(),
        which in 0..6_usize,
        off in -100_000_000..100_000_000_i64,
    ) {
        let mut way = way(&parts);
        let moved = |nanos: &mut Nanos| nanos.0 = nanos.0.wrapping_add_signed(off);
        match which {
            0 => moved(&mut way.received_last.stamp.at),
            1 => moved(&mut way.sent.at),
            2 => moved(&mut way.answered_first.stamp.at),
            3 => moved(&mut way.answered_last.stamp.at),
            4 => moved(&mut way.replied.at),
            _ => moved(&mut way.connected),
        }
        if let Ok(stages) = Stages::of(&way) {
            for stage in Stage::ALL {
                prop_assert!(stages.get(stage) < 2_000 * MILLI, "{}", stage.name());
            }
        }
    }
}

fn quick() -> Parts {
    Parts {
        upload: 0,
        waited: 0,
        queue_in: 10 * MICRO,
        mesh_in: 20 * MICRO,
        retries: 0,
        connect: 0,
        there: 50 * MICRO,
        server: 5 * MILLI,
        back: 50 * MICRO,
        transfer: 0,
        queue_out: 10 * MICRO,
        mesh_out: 20 * MICRO,
        blocked: 0,
        held_up: 0,
        delayed: 0,
    }
}

#[test]
fn an_acknowledgement_that_waited_for_the_answer_does_not_make_the_network_slow() {
    let late = Parts {
        delayed: u64::MAX,
        ..quick()
    };
    let stages = Stages::of(&way(&late)).unwrap();
    assert_eq!(stages.get(Stage::Network), 100 * MICRO);
    assert_eq!(stages.get(Stage::Server), 5 * MILLI);
}

#[test]
fn what_was_lost_is_the_networks_until_it_was_sent_again() {
    let lost = Parts {
        server: 205 * MILLI,
        ..quick()
    };
    let again = |after: u64, acknowledged: Option<u64>| {
        let mut way = way(&lost);
        way.sent_again = Some(Nanos(way.sent.at.0 + after));
        way.acknowledged = acknowledged.map(|at| Nanos(way.sent.at.0 + at));
        let stages = Stages::of(&way).unwrap();
        let sum: u64 = Stage::ALL.iter().map(|stage| stages.get(*stage)).sum();
        assert_eq!(sum, stages.total);
        [stages.get(Stage::Network), stages.get(Stage::Server)]
    };
    let told = [200 * MILLI + 100 * MICRO, 5 * MILLI];
    assert_eq!(again(200 * MILLI, None), told);
    assert_eq!(again(200 * MILLI, Some(200 * MILLI + 100 * MICRO)), told);
    // The acknowledgement was lost, or came too late.
    let in_vain = again(200 * MILLI, Some(40 * MILLI));
    assert_eq!(in_vain, [100 * MICRO, 205 * MILLI]);
    // No longer than it took.
    assert_eq!(again(900 * MILLI, None)[1], 0);
}

#[test]
fn where_nothing_is_known_of_the_write_it_was_not_before_there_was_all_of_it() {
    let upload = Parts {
        upload: 2_000 * MILLI,
        ..quick()
    };
    let mut way = way(&upload);
    // Its connection was there before.
    way.connected = way.received_first.stamp.at;
    way.sent = Stamp {
        at: way.connected,
        ..Stamp::default()
    };
    let stages = Stages::of(&way).unwrap();
    assert_eq!(stages.get(Stage::Client), 2_000 * MILLI);
    assert!(stages.get(Stage::Server) >= 5 * MILLI);
}

#[test]
fn an_answer_before_the_request_has_ended_says_nothing_of_the_server() {
    let mut early = way(&quick());
    early.answered_first.stamp.at = Nanos(early.sent.at.0 - MILLI);
    assert_eq!(Stages::of(&early), Err(Unclear::Overlapping));
}

#[test]
fn a_clock_that_was_set_gives_no_figures() {
    let mut set = way(&quick());
    set.answered_last.stamp.at = Nanos(set.answered_last.stamp.at.0 - 3_600_000 * MILLI);
    assert_eq!(Stages::of(&set), Err(Unclear::Inconsistent));
}
