//! What the kernel half measures of pods' sockets whose connections do not go through the agent.

use bytemuck::{Pod, Zeroable};

use crate::Address;

/// Bits of a duration in nanoseconds below which no buckets differ: 1.024 µs.
const LEAST_BITS: u32 = 10;
/// Bits from which on they do not differ again: 1.07 s.
const MOST_BITS: u32 = 30;
/// Each doubling has 2 to this many buckets, so that one is at most an eighth wide.
const STEP_BITS: u32 = 3;

/// Buckets of [`Durations`].
pub const DURATION_BUCKETS: usize = (((MOST_BITS - LEAST_BITS) << STEP_BITS) + 2) as usize;

/// Values of [`PodSocketKey::direction`].
pub mod pod_socket_direction {
    /// The pod connected.
    pub const OUTBOUND: u32 = 1;
    /// The pod's server accepted.
    pub const INBOUND: u32 = 2;
}

/// Key of `pod_sockets`: all sockets of a pod that are connected to the same address and port, or that
/// were accepted on the same port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct PodSocketKey {
    /// Cookie of the pod's network namespace (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
    /// Outbound: the server. Inbound: zero.
    pub address: Address,
    /// Outbound: the server's port. Inbound: the port of the pod's own server. Host order.
    pub port: u32,
    /// [`pod_socket_direction::OUTBOUND`] or [`pod_socket_direction::INBOUND`].
    pub direction: u32,
}

/// How many durations there were of about each length.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Durations {
    /// Of all, nanoseconds.
    pub sum: u64,
    /// How many were in each bucket; see [`Durations::bucket_of`].
    pub buckets: [u64; DURATION_BUCKETS],
}

impl Durations {
    /// The bucket that so many nanoseconds belong to. The first has all below 1.024 µs, the last all
    /// from 1.07 s on; between them each doubling has 8 of the same width.
    #[inline(always)]
    pub const fn bucket_of(nanoseconds: u64) -> usize {
        if nanoseconds >> LEAST_BITS == 0 {
            return 0;
        }
        if nanoseconds >> MOST_BITS != 0 {
            return DURATION_BUCKETS - 1;
        }
        let bits = nanoseconds.ilog2();
        let step = (nanoseconds >> (bits - STEP_BITS)) as usize & ((1 << STEP_BITS) - 1);
        1 + (((bits - LEAST_BITS) as usize) << STEP_BITS) + step
    }

    /// Where a bucket begins, in nanoseconds. The one after it begins where it ends; the last has no
    /// end.
    pub const fn beginning_of(bucket: usize) -> u64 {
        if bucket == 0 {
            return 0;
        }
        let steps = (bucket - 1) as u64;
        let bits = LEAST_BITS as u64 + (steps >> STEP_BITS);
        let step = steps & ((1 << STEP_BITS) - 1);
        (1 << bits) + (step << (bits - STEP_BITS as u64))
    }
}

/// Value of `pod_sockets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PodSocketStats {
    /// Connections that were established.
    pub connections: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Round-trip times that the kernel gave smoothed only, because it is an older one.
    pub smoothed: u64,
    /// When anything was last counted, nanoseconds of `CLOCK_MONOTONIC`.
    pub last_at: u64,
    /// Round-trip times, as TCP measures them; of each socket one in a tick of the kernel's at most.
    pub round_trip: Durations,
    /// From the end of a send until the last byte was handed to the network device.
    pub to_device: Durations,
    /// From there until the peer's kernel acknowledged it.
    pub to_acknowledged: Durations,
}

/// Value of `pod_sock_state`: what is measured of one socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PodSocketState {
    /// Where it counts.
    pub key: PodSocketKey,
    /// Since when a send is being timed, 0 if none is. Nanoseconds of `CLOCK_MONOTONIC`.
    pub sent_at: u64,
    /// When the network device got it, 0 if it has not.
    pub device_at: u64,
    /// Sends so far, from a random number on.
    pub sends: u64,
    /// The tick (jiffy) in which a round-trip time was last counted.
    pub round_trip_tick: u64,
}

#[cfg(test)]
mod tests {
    use super::{DURATION_BUCKETS, Durations};

    #[test]
    fn every_duration_is_in_the_bucket_that_begins_at_or_before_it() {
        let around = (0..40).flat_map(|bits| {
            let power = 1_u64 << bits;
            [
                power - 1,
                power,
                power + 1,
                power + power / 3,
                power * 2 - 1,
            ]
        });
        for nanoseconds in around.chain([0, u64::MAX]) {
            let bucket = Durations::bucket_of(nanoseconds);
            assert!(bucket < DURATION_BUCKETS, "{nanoseconds}");
            assert!(
                Durations::beginning_of(bucket) <= nanoseconds,
                "{nanoseconds}"
            );
            if bucket + 1 < DURATION_BUCKETS {
                assert!(
                    nanoseconds < Durations::beginning_of(bucket + 1),
                    "{nanoseconds}"
                );
            }
        }
    }

    #[test]
    fn a_bucket_is_at_most_an_eighth_wide() {
        for bucket in 1..DURATION_BUCKETS - 1 {
            let (from, to) = (
                Durations::beginning_of(bucket),
                Durations::beginning_of(bucket + 1),
            );
            assert!(from < to && to - from <= from / 8, "{from} to {to}");
        }
    }
}
