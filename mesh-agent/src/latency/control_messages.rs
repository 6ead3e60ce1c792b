//! Timestamps out of the control messages that `recvmsg` gives, without allocating or copying.
//!
//! What the bytes mean is in `include/uapi/linux/errqueue.h`, `include/uapi/linux/net_tstamp.h` and
//! `Documentation/networking/timestamping.rst` of the kernel.

#[cfg(test)]
mod tests;

use super::{HardwareNanos, Nanos};

/// `SCM_TIMESTAMPING`: three `struct timespec`: software, unused, hardware.
const TIMESTAMPING: (i32, i32) = (libc::SOL_SOCKET, libc::SO_TIMESTAMPING);
/// `SCM_TIMESTAMPING_PKTINFO`: `struct scm_ts_pktinfo`.
const PACKET_INFO: (i32, i32) = (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING_PKTINFO);
/// What comes with a message of the error queue: `struct sock_extended_err`.
const ERRORS: [(i32, i32); 2] = [
    (libc::SOL_IP, libc::IP_RECVERR),
    (libc::SOL_IPV6, libc::IPV6_RECVERR),
];

/// `SCM_TSTAMP_*`: which moment of a sent byte it is.
const SENT: u32 = 0;
const SCHEDULED: u32 = 1;
const ACKNOWLEDGED: u32 = 2;

/// A control message's header: its length with this header, level and type.
const HEADER: usize = size_of::<libc::cmsghdr>();
/// Control messages begin at multiples of this.
const ALIGNMENT: usize = size_of::<usize>();
/// One of a `struct timespec`'s two fields.
const WORD: usize = size_of::<libc::c_long>();

/// Room for the control messages of one `recvmsg`, bytes: more than timestamps, packet information
/// and error need together.
pub const CONTROL_SPACE: usize = 256;

/// When it was, by each clock that tells. With `SOF_TIMESTAMPING_OPT_TX_SWHW` a transmission's two
/// stamps come as two messages, each with one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// By the kernel.
    pub software: Option<Nanos>,
    /// By the network card, by its own clock.
    pub hardware: Option<HardwareNanos>,
}

impl Stamps {
    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Which packet a hardware receive stamp is of (`SOF_TIMESTAMPING_OPT_PKTINFO`). Datagrams have it,
/// TCP does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// The interface that received it, also if it came on through others.
    pub interface: u32,
    /// Its length at the link layer, bytes.
    pub length: u32,
}

/// What [`received`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveStamp {
    /// When the last byte of what was read came in.
    pub stamps: Stamps,
    /// Of which packet.
    pub packet: Option<PacketInfo>,
}

/// Which moment of a sent byte or datagram it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It was given to the queueing discipline (`SOF_TIMESTAMPING_TX_SCHED`).
    Scheduled,
    /// It was given to the device, by the software stamp; it left, by the hardware stamp.
    Sent,
    /// The peer's kernel acknowledged it (`SOF_TIMESTAMPING_TX_ACK`).
    Acknowledged,
}

/// What [`transmitted`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmitStamp {
    /// Which moment it is.
    pub moment: Moment,
    /// Which byte of the stream, or which datagram (`SOF_TIMESTAMPING_OPT_ID`). It wraps around.
    pub key: u32,
    /// When that was.
    pub stamps: Stamps,
}

/// The receive stamp among the control messages of a `recvmsg`; `None` if there is none.
pub fn received(control: &[u8]) -> Option<ReceiveStamp> {
    let mut stamps = Stamps::default();
    let mut packet = None;
    for (kind, data) in Messages(control) {
        if kind == TIMESTAMPING {
            stamps = read_stamps(data)?;
        } else if kind == PACKET_INFO {
            packet = read_packet_info(data);
        }
    }
    (!stamps.is_empty()).then_some(ReceiveStamp { stamps, packet })
}

/// The transmit stamp among the control messages of a `recvmsg` with `MSG_ERRQUEUE`; `None` if it is
/// another message of that queue, such as an ICMP error, or a moment that this does not know.
pub fn transmitted(control: &[u8]) -> Option<TransmitStamp> {
    let mut stamps = Stamps::default();
    let mut which = None;
    for (kind, data) in Messages(control) {
        if kind == TIMESTAMPING {
            stamps = read_stamps(data)?;
        } else if ERRORS.contains(&kind) {
            which = Some(read_error(data)?);
        }
    }
    let (moment, key) = which?;
    (!stamps.is_empty()).then_some(TransmitStamp {
        moment,
        key,
        stamps,
    })
}

/// The control messages in a buffer, as `CMSG_FIRSTHDR` and `CMSG_NXTHDR` find them: level and type,
/// and data. Ends at the first that is not whole.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = ((i32, i32), &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.first_chunk::<HEADER>()?;
        let length = usize::from_ne_bytes(read(head, 0)?);
        let level = i32::from_ne_bytes(read(head, ALIGNMENT)?);
        let kind = i32::from_ne_bytes(read(head, ALIGNMENT + size_of::<i32>())?);
        let data = self.0.get(HEADER..length)?;
        let next = length.checked_next_multiple_of(ALIGNMENT)?;
        self.0 = self.0.get(next..).unwrap_or_default();
        Some(((level, kind), data))
    }
}

fn read<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    read(bytes, offset).map(u32::from_ne_bytes)
}

/// `struct scm_timestamping`; an entry that is 0 is not there.
fn read_stamps(data: &[u8]) -> Option<Stamps> {
    let times = data.first_chunk::<{ 6 * WORD }>()?;
    Some(Stamps {
        software: read_timespec(times, 0).map(Nanos),
        hardware: read_timespec(times, 2).map(HardwareNanos),
    })
}

/// Entry `index` of an array of `struct timespec`, nanoseconds; `None` for 0 and for one before 1970.
fn read_timespec(times: &[u8; 6 * WORD], index: usize) -> Option<u64> {
    let at = index * 2 * WORD;
    let seconds = libc::c_long::from_ne_bytes(read(times, at)?);
    let nanos = libc::c_long::from_ne_bytes(read(times, at + WORD)?);
    let (seconds, nanos) = (u64::try_from(seconds).ok()?, u64::try_from(nanos).ok()?);
    let sum = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    (sum != 0).then_some(sum)
}

/// `struct scm_ts_pktinfo`: if_index, pkt_length, two reserved. `None` where the kernel no longer knows
/// the interface.
fn read_packet_info(data: &[u8]) -> Option<PacketInfo> {
    let info = PacketInfo {
        interface: read_u32(data, 0)?,
        length: read_u32(data, 4)?,
    };
    (info.interface != 0).then_some(info)
}

/// `struct sock_extended_err`: errno, origin, type, code, padding, info, data.
fn read_error(data: &[u8]) -> Option<(Moment, u32)> {
    let errno = read_u32(data, 0)?;
    let origin = *data.get(4)?;
    if errno != libc::ENOMSG.cast_unsigned() || origin != libc::SO_EE_ORIGIN_TIMESTAMPING {
        return None;
    }
    let moment = match read_u32(data, 8)? {
        SENT => Moment::Sent,
        SCHEDULED => Moment::Scheduled,
        ACKNOWLEDGED => Moment::Acknowledged,
        _ => return None,
    };
    Some((moment, read_u32(data, 12)?))
}
