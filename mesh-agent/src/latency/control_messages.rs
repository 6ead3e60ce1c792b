//! Timestamps in the control messages that `recvmsg` gives: of what was received, and from the error queue of
//! what was sent.
//!
//! Layouts: `struct cmsghdr` of socket(7), `struct scm_timestamping` and `struct sock_extended_err` of
//! include/uapi/linux/errqueue.h. Nothing is allocated.

use super::clock::Nanos;

/// `SO_EE_ORIGIN_TIMESTAMPING`.
const ORIGIN_TIMESTAMPING: u8 = 4;
/// `struct cmsghdr` and what it is padded to, on 64-bit machines.
const HEAD: usize = 16;

/// What the kernel and the card say of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// By the kernel.
    pub software: Option<Nanos>,
    /// By the card, on its own clock.
    pub hardware: Option<Nanos>,
}

/// Where on its way a packet was stamped (`SCM_TSTAMP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmitPoint {
    /// Handed to the device, by the driver or the card.
    Sent,
    /// Handed to the queue of the device.
    Scheduled,
    /// Acknowledged by the peer's kernel.
    Acknowledged,
}

/// A stamp of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmitStamp {
    /// Where.
    pub point: TransmitPoint,
    /// TCP: the last byte that it is of, counted from when stamps were asked for. UDP: which datagram.
    pub key: u32,
    /// When.
    pub stamps: Stamps,
}

/// The stamps of what was received.
pub fn received(control: &[u8]) -> Option<Stamps> {
    let timestamping = messages(control).find(|message| message.is_timestamping());
    timestamping.and_then(|message| stamps(message.data))
}

/// A stamp from an error queue; `None` if it is an error.
pub fn transmitted(control: &[u8]) -> Option<TransmitStamp> {
    let mut found = None;
    let mut about = None;
    for message in messages(control) {
        if message.is_timestamping() {
            found = stamps(message.data);
        } else if message.is_error() {
            about = error(message.data);
        }
    }
    let (point, key) = about?;
    Some(TransmitStamp {
        point,
        key,
        stamps: found?,
    })
}

struct Message<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

impl Message<'_> {
    fn is_timestamping(&self) -> bool {
        self.level == libc::SOL_SOCKET && self.kind == libc::SCM_TIMESTAMPING
    }

    fn is_error(&self) -> bool {
        (self.level == libc::SOL_IP && self.kind == libc::IP_RECVERR)
            || (self.level == libc::SOL_IPV6 && self.kind == libc::IPV6_RECVERR)
    }
}

fn messages(mut control: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u64_at(control, 0)? as usize;
        let data = control.get(HEAD..length)?;
        let message = Message {
            level: u32_at(control, 8)?.cast_signed(),
            kind: u32_at(control, 12)?.cast_signed(),
            data,
        };
        control = control.get(length.next_multiple_of(8)..).unwrap_or(&[]);
        Some(message)
    })
}

/// Three times: by software, one that is not used any more, by hardware. 0 is none.
fn stamps(data: &[u8]) -> Option<Stamps> {
    let time = |at| {
        let (seconds, nanos) = (u64_at(data, at)?, u64_at(data, at + 8)?);
        Some(Nanos(seconds * 1_000_000_000 + nanos))
    };
    let some = |time: Nanos| (time.0 > 0).then_some(time);
    Some(Stamps {
        software: some(time(0)?),
        hardware: some(time(32)?),
    })
}

fn error(data: &[u8]) -> Option<(TransmitPoint, u32)> {
    let origin = *data.get(4)?;
    let point = match u32_at(data, 8)? {
        0 => TransmitPoint::Sent,
        1 => TransmitPoint::Scheduled,
        2 => TransmitPoint::Acknowledged,
        _ => return None,
    };
    let key = u32_at(data, 12)?;
    (origin == ORIGIN_TIMESTAMPING).then_some((point, key))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
