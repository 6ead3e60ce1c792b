//! Bytes as the kernel gave them, and bytes laid out by its definitions where no device at hand gives such.

use proptest::prelude::*;

use super::*;

/// `recvmsg` of 5 bytes with all of `SOF_TIMESTAMPING_*` asked for, recorded on Linux 6.18, x86-64: over
/// loopback (TCP and UDP, IPv4 and IPv6) and a veth pair (TCP). What it is, the bytes in hexadecimal, and
/// the nanoseconds after the second that the software stamp must come to.
const RECEIVED: [(&str, &str, u64); 5] = [
    (
        "lo, TCP, IPv4",
        "400000000000000001000000250000009b0d076b000000006e77173600000000\
         0000000000000000000000000000000000000000000000000000000000000000",
        907_507_566,
    ),
    (
        "lo, UDP, IPv4",
        "400000000000000001000000250000009c0d076b00000000aab27a0600000000\
         0000000000000000000000000000000000000000000000000000000000000000",
        108_704_426,
    ),
    (
        "lo, TCP, IPv6",
        "400000000000000001000000250000009c0d076b000000003f5e721200000000\
         0000000000000000000000000000000000000000000000000000000000000000",
        309_485_119,
    ),
    (
        "lo, UDP, IPv6",
        "400000000000000001000000250000009c0d076b00000000b5a56c1e00000000\
         0000000000000000000000000000000000000000000000000000000000000000",
        510_436_789,
    ),
    (
        "veth, TCP, IPv4",
        "400000000000000001000000250000009d0d076b00000000a7d29e0f00000000\
         0000000000000000000000000000000000000000000000000000000000000000",
        262_066_855,
    ),
];

/// `recvmsg` with `MSG_ERRQUEUE` of the senders of the same bytes: also the moment and the key. A stream's
/// key is that of its last byte; a datagram's is its number.
const TRANSMITTED: [(&str, &str, Moment, u32, u64); 7] = [
    (
        "lo, TCP, IPv4",
        "400000000000000001000000250000009b0d076b00000000394e173600000000\
         0000000000000000000000000000000000000000000000000000000000000000\
         3000000000000000000000000b0000002a000000040000000100000004000000\
         00000000000000000000000000000000",
        Moment::Scheduled,
        4,
        907_497_017,
    ),
    (
        "lo, TCP, IPv4",
        "400000000000000001000000250000009b0d076b00000000715d173600000000\
         0000000000000000000000000000000000000000000000000000000000000000\
         3000000000000000000000000b0000002a000000040000000000000004000000\
         00000000000000000000000000000000",
        Moment::Sent,
        4,
        907_500_913,
    ),
    (
        "lo, TCP, IPv4",
        "400000000000000001000000250000009b0d076b00000000a9b6173600000000\
         0000000000000000000000000000000000000000000000000000000000000000\
         3000000000000000000000000b0000002a000000040000000200000004000000\
         00000000000000000000000000000000",
        Moment::Acknowledged,
        4,
        907_523_753,
    ),
    (
        "lo, UDP, IPv4",
        "400000000000000001000000250000009c0d076b000000006cae7a0600000000\
         0000000000000000000000000000000000000000000000000000000000000000\
         3000000000000000000000000b0000002a000000040000000000000000000000\
         00000000000000000000000000000000",
        Moment::Sent,
        0,
        108_703_340,
    ),
    (
        "lo, TCP, IPv6",
        "400000000000000001000000250000009c0d076b00000000c184721200000000\
         0000000000000000000000000000000000000000000000000000000000000000\
         3c0000000000000029000000190000002a000000040000000200000004000000\
         0000000000000000000000000000000000000000000000000000000000000000",
        Moment::Acknowledged,
        4,
        309_494_977,
    ),
    (
        "veth, TCP, IPv4",
        "400000000000000001000000250000009d0d076b00000000bbd09e0f00000000\
         0000000000000000000000000000000000000000000000000000000000000000\
         3000000000000000000000000b0000002a000000040000000000000004000000\
         00000000000000000000000000000000",
        Moment::Sent,
        4,
        262_066_363,
    ),
    (
        "veth, TCP, IPv4",
        "400000000000000001000000250000009d0d076b00000000e0d99e0f00000000\
         0000000000000000000000000000000000000000000000000000000000000000\
         3000000000000000000000000b0000002a000000040000000200000004000000\
         00000000000000000000000000000000",
        Moment::Acknowledged,
        4,
        262_068_704,
    ),
];

/// Recorded on Linux 6.1 with an emulated igb card: the software and the hardware stamp of one TCP segment,
/// which come one by one (`SOF_TIMESTAMPING_OPT_TX_SWHW`).
const CARD_SENT: [&str; 2] = [
    "40000000000000000100000025000000e40d076b000000003e5fdf1400000000\
     0000000000000000000000000000000000000000000000000000000000000000\
     3000000000000000000000000b0000002a000000040000000000000004000000\
     00000000000000000000000000000000",
    "4000000000000000010000002500000000000000000000000000000000000000\
     00000000000000000000000000000000e40d076b00000000a4c8de1400000000\
     3000000000000000000000000b0000002a000000040000000000000004000000\
     00000000000000000000000000000000",
];

/// Recorded in the same machine: a frame of PTP, which is the only kind that this card stamps as it comes in.
const CARD_RECEIVED: &str = "2000000000000000010000003a000000030000004e0000000000000000000000\
     40000000000000000100000025000000db0d076b000000000e07e83900000000\
     00000000000000000000000000000000db0d076b0000000001c9c93900000000";

const SECOND: u64 = 1_000_000_000;
/// 25 November 2026, 16:32 UTC, when the first were recorded.
const RECORDED: u64 = 0x6b07_0d9b * SECOND;

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal
        .chars()
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn recorded_receive_stamps_are_read() {
    for (what, recorded, nanos) in RECEIVED {
        let stamp = received(&bytes(recorded)).unwrap_or_else(|| panic!("{what}"));
        let Nanos(time) = stamp.stamps.software.unwrap();
        assert_eq!(time % SECOND, nanos, "{what}");
        assert!((RECORDED..RECORDED + 5 * SECOND).contains(&time), "{what}");
        assert_eq!(stamp.stamps.hardware, None, "{what}");
        assert_eq!(stamp.packet, None, "{what}");
        assert_eq!(transmitted(&bytes(recorded)), None, "{what}");
    }
}

#[test]
fn recorded_transmit_stamps_are_read() {
    for (what, recorded, moment, key, nanos) in TRANSMITTED {
        let stamp = transmitted(&bytes(recorded)).unwrap_or_else(|| panic!("{what}"));
        assert_eq!((stamp.moment, stamp.key), (moment, key), "{what}");
        let Nanos(time) = stamp.stamps.software.unwrap();
        assert_eq!(time % SECOND, nanos, "{what}");
        assert_eq!(stamp.stamps.hardware, None, "{what}");
    }
}

#[test]
fn recorded_stamps_of_a_card_are_kept_apart_from_those_of_the_kernel() {
    let [software, hardware] = CARD_SENT.map(|recorded| transmitted(&bytes(recorded)).unwrap());
    let second = 0x6b07_0de4 * SECOND;
    assert_eq!(
        software.stamps,
        Stamps {
            software: Some(Nanos(second + 350_183_230)),
            hardware: None,
        }
    );
    assert_eq!(
        hardware.stamps,
        Stamps {
            software: None,
            hardware: Some(HardwareNanos(second + 350_144_676)),
        }
    );
    for stamp in [software, hardware] {
        assert_eq!((stamp.moment, stamp.key), (Moment::Sent, 4));
    }
}

#[test]
fn a_recorded_receive_stamp_of_a_card_says_which_card() {
    let second = 0x6b07_0ddb * SECOND;
    assert_eq!(
        received(&bytes(CARD_RECEIVED)),
        Some(ReceiveStamp {
            stamps: Stamps {
                software: Some(Nanos(second + 971_507_470)),
                hardware: Some(HardwareNanos(second + 969_525_505)),
            },
            packet: Some(PacketInfo {
                interface: 3,
                length: 78,
            }),
        })
    );
}

/// A control message as `put_cmsg` of the kernel lays it out.
fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = (HEADER + data.len()).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

/// `struct scm_timestamping`.
fn timestamping(software: (i64, i64), hardware: (i64, i64)) -> Vec<u8> {
    let words = [software.0, software.1, 0, 0, hardware.0, hardware.1];
    let data: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    message(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &data)
}

/// `struct sock_extended_err` and the address of nobody.
fn extended_error(errno: i32, origin: u8, info: u32, data: u32) -> Vec<u8> {
    let mut bytes = errno.to_ne_bytes().to_vec();
    bytes.extend([origin, 0, 0, 0]);
    bytes.extend(info.to_ne_bytes());
    bytes.extend(data.to_ne_bytes());
    bytes.resize(32, 0);
    message(libc::SOL_IP, libc::IP_RECVERR, &bytes)
}

/// Laid out by the kernel's definition (`tcp_recv_timestamp` of net/ipv4/tcp.c): TCP over a card that stamps
/// every packet as it comes in. Both stamps in one message, and nothing of the packet.
#[test]
fn a_stream_s_receive_stamps_of_both_clocks_come_together() {
    let control = timestamping((1_795_000_000, 5), (37, 6));
    assert_eq!(
        received(&control),
        Some(ReceiveStamp {
            stamps: Stamps {
                software: Some(Nanos(1_795_000_000 * SECOND + 5)),
                hardware: Some(HardwareNanos(37 * SECOND + 6)),
            },
            packet: None,
        })
    );
}

/// Laid out by the kernel's definition: a message for others, such as an application's own, may be before.
#[test]
fn control_messages_of_other_kinds_are_passed_over() {
    let mut control = message(libc::SOL_IP, libc::IP_TTL, &64_i32.to_ne_bytes());
    control.extend(message(
        libc::SOL_SOCKET,
        libc::SCM_TIMESTAMPING_OPT_STATS,
        &[7; 13],
    ));
    control.extend(timestamping((1, 2), (0, 0)));
    let stamp = received(&control).unwrap();
    assert_eq!(stamp.stamps.software, Some(Nanos(SECOND + 2)));
}

/// Laid out by the kernel's definition.
#[test]
fn other_messages_of_the_error_queue_are_no_stamps() {
    let icmp = extended_error(libc::ECONNREFUSED, libc::SO_EE_ORIGIN_ICMP, 0, 0);
    assert_eq!(transmitted(&icmp), None);
    let stamps = timestamping((1, 2), (0, 0));
    let origin = libc::SO_EE_ORIGIN_TIMESTAMPING;
    let with = |error: Vec<u8>| transmitted(&[stamps.clone(), error].concat());
    assert!(with(extended_error(libc::ENOMSG, origin, 0, 9)).is_some());
    assert_eq!(with(icmp), None);
    // SCM_TSTAMP_COMPLETION of Linux 6.15, which only Bluetooth gives.
    assert_eq!(with(extended_error(libc::ENOMSG, origin, 3, 9)), None);
    // A stamp without a time.
    let empty = timestamping((0, 0), (0, 0));
    let error = extended_error(libc::ENOMSG, origin, 0, 9);
    assert_eq!(transmitted(&[empty, error].concat()), None);
}

#[test]
fn no_control_messages_hold_no_stamps() {
    assert_eq!(received(&[]), None);
    assert_eq!(transmitted(&[]), None);
}

proptest! {
    #[test]
    fn a_buffer_that_was_too_small_gives_the_same_stamp_or_none(length in 0..200_usize) {
        for recorded in CARD_SENT.iter().chain([&CARD_RECEIVED]) {
            let whole = bytes(recorded);
            let cut = &whole[..length.min(whole.len())];
            if let Some(stamp) = transmitted(cut) {
                prop_assert_eq!(Some(stamp), transmitted(&whole));
            }
            if let Some(stamp) = received(cut) {
                prop_assert_eq!(stamp.stamps, received(&whole).unwrap().stamps);
            }
        }
    }

    #[test]
    fn any_bytes_are_borne(control in prop::collection::vec(any::<u8>(), 0..200)) {
        let _anything = (received(&control), transmitted(&control));
    }

    /// Nearly right: a recorded one with some bytes changed.
    #[test]
    fn any_change_is_borne(
        changes in prop::collection::vec((0..112_usize, any::<u8>()), 1..6),
        which in 0..2_usize,
    ) {
        let mut control = bytes(CARD_SENT[which]);
        for (at, byte) in changes {
            control[at] = byte;
        }
        let _anything = (received(&control), transmitted(&control));
    }

    #[test]
    fn what_the_kernel_lays_out_is_read_back(
        software in (1..4_000_000_000_i64, 0..1_000_000_000_i64),
        hardware in prop::option::of((1..4_000_000_000_i64, 0..1_000_000_000_i64)),
        moment in 0..3_u32,
        key in any::<u32>(),
    ) {
        let error = extended_error(libc::ENOMSG, libc::SO_EE_ORIGIN_TIMESTAMPING, moment, key);
        let control = [timestamping(software, hardware.unwrap_or_default()), error].concat();
        let stamp = transmitted(&control).unwrap();
        let nanos = |(seconds, nanos): (i64, i64)| seconds as u64 * SECOND + nanos as u64;
        prop_assert_eq!(stamp.key, key);
        prop_assert_eq!(stamp.stamps.software, Some(Nanos(nanos(software))));
        prop_assert_eq!(stamp.stamps.hardware, hardware.map(nanos).map(HardwareNanos));
    }
}
