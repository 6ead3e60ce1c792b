//! The system calls of packet timestamps: asking for them, and getting them with what is received and from
//! the error queue.
//!
//! `unsafe`: recv(2), recvmsg(2), recvmmsg(2), sendmsg(2), getsockopt(2), setsockopt(2) and ioctl(2) with their raw
//! pointers, none of which outlives the call.
#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    mem::zeroed,
    os::fd::{AsRawFd, RawFd},
    ptr,
    time::Duration,
};

use bytes::BufMut;
use socket2::{Domain, Protocol, Socket, Type};

use super::control_messages::{self, Stamps, TransmitStamp};

const CONTROL: usize = control_messages::CONTROL_SPACE;
/// Stamps taken from an error queue at once.
const AT_ONCE: usize = 4;

/// Room for control messages, aligned as their heads are.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Which stamps a write is to have (`SOF_TIMESTAMPING_TX_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(u32);

impl Asked {
    /// None.
    pub const NOTHING: Self = Self(0);
    /// When it is handed to the device.
    pub const SENT: Self = Self(libc::SOF_TIMESTAMPING_TX_SOFTWARE);
    /// And when to the device's queue, and when the peer's kernel acknowledged it.
    pub const WHOLE_WAY: Self = Self(
        libc::SOF_TIMESTAMPING_TX_SOFTWARE
            | libc::SOF_TIMESTAMPING_TX_SCHED
            | libc::SOF_TIMESTAMPING_TX_ACK,
    );

    /// Also by the card.
    #[must_use]
    pub const fn by_card(self) -> Self {
        Self(self.0 | libc::SOF_TIMESTAMPING_TX_HARDWARE)
    }

    /// How many there will be.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether it is to have that of the device's queue.
    pub const fn is_scheduled(self) -> bool {
        self.0 & libc::SOF_TIMESTAMPING_TX_SCHED != 0
    }

    /// Whether it is to have that of the peer's acknowledgement.
    pub const fn is_acknowledged(self) -> bool {
        self.0 & libc::SOF_TIMESTAMPING_TX_ACK != 0
    }

    /// Whether it is to have that of the card.
    pub const fn is_by_card(self) -> bool {
        self.0 & libc::SOF_TIMESTAMPING_TX_HARDWARE != 0
    }
}

/// Prepares a TCP socket to be asked for stamps, write by write, and to give those of what it receives. From
/// now on bytes that are written are counted from 0. `WouldBlock` if they cannot be counted now: on Linux
/// before 6.2, while something is not acknowledged.
pub fn prepare_stream(socket: &impl AsRawFd, with_cards: bool) -> io::Result<()> {
    let flags = flags(with_cards);
    let fd = socket.as_raw_fd();
    match set_timestamping(fd, flags | libc::SOF_TIMESTAMPING_OPT_ID_TCP) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            if unacknowledged(fd)? > 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            set_timestamping(fd, flags)
        }
        done => done,
    }
}

/// The same for a datagram socket, whose datagrams are counted from 0.
pub fn prepare_datagrams(socket: &impl AsRawFd) -> io::Result<()> {
    set_timestamping(socket.as_raw_fd(), flags(false))
}

/// As long as this socket is open, the kernel stamps what comes in: it does so for all sockets or for none.
pub fn stamp_what_comes_in() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
    set_timestamping(socket.as_raw_fd(), flags)?;
    Ok(socket)
}

const fn flags(with_cards: bool) -> u32 {
    let flags = libc::SOF_TIMESTAMPING_SOFTWARE
        | libc::SOF_TIMESTAMPING_RX_SOFTWARE
        | libc::SOF_TIMESTAMPING_OPT_ID
        | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    if with_cards {
        flags
            | libc::SOF_TIMESTAMPING_RAW_HARDWARE
            | libc::SOF_TIMESTAMPING_RX_HARDWARE
            | libc::SOF_TIMESTAMPING_OPT_TX_SWHW
    } else {
        flags
    }
}

fn set_timestamping(fd: RawFd, flags: u32) -> io::Result<()> {
    // SAFETY: the pointer is live and the length is that of the value.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPING,
            (&raw const flags).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Bytes that were written and are not acknowledged (`SIOCOUTQ`).
fn unacknowledged(fd: RawFd) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the pointer is live, and the request writes an int.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        Ok(bytes)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Receives into the room that `buffer` has, with the stamp of the last packet that was taken whole.
pub fn receive(
    socket: &impl AsRawFd,
    buffer: &mut impl BufMut,
) -> io::Result<(usize, Option<Stamps>)> {
    let room = buffer.chunk_mut();
    let mut control = Control([0; CONTROL]);
    let mut piece = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    let mut message = message(&raw mut piece, 1, &mut control, CONTROL);
    // SAFETY: the message points to live memory of the lengths it gives, which the kernel only writes to.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written so many bytes.
    unsafe { buffer.advance_mut(count) };
    let there = message.msg_controllen.min(CONTROL);
    let stamp = control_messages::received(&control.0[..there]);
    Ok((count, stamp.map(|stamp| stamp.stamps)))
}

/// The same without stamps.
pub fn read(
    socket: &impl AsRawFd,
    buffer: &mut impl BufMut,
) -> io::Result<(usize, Option<Stamps>)> {
    let room = buffer.chunk_mut();
    let (at, length) = (room.as_mut_ptr().cast(), room.len());
    // SAFETY: the kernel only writes to the room that there is.
    let count = unsafe { libc::recv(socket.as_raw_fd(), at, length, libc::MSG_DONTWAIT) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written so many bytes.
    unsafe { buffer.advance_mut(count) };
    Ok((count, None))
}

/// Sends, and asks for stamps of the last byte that is taken.
pub fn send(
    socket: &impl AsRawFd,
    slices: &[IoSlice<'_>],
    asked: Option<Asked>,
) -> io::Result<usize> {
    let mut control = Control([0; CONTROL]);
    // `IoSlice` has the layout of an iovec, which sendmsg only reads.
    let pieces: *mut libc::iovec = slices.as_ptr().cast_mut().cast();
    let mut flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let mut room = 0;
    if let Some(Asked(asked)) = asked {
        // A `struct cmsghdr` and its 32 bits of data.
        let length = 20_u64;
        control.0[..8].copy_from_slice(&length.to_ne_bytes());
        control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        control.0[12..16].copy_from_slice(&libc::SO_TIMESTAMPING.to_ne_bytes());
        control.0[16..20].copy_from_slice(&asked.to_ne_bytes());
        room = 24;
        // What is written later is not to go out in the segment whose stamp this is.
        flags |= libc::MSG_EOR;
    }
    let message = message(pieces, slices.len(), &mut control, room);
    // SAFETY: the message points to live memory of the lengths it gives.
    let count = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

fn message(
    pieces: *mut libc::iovec,
    count: usize,
    control: &mut Control,
    length: usize,
) -> libc::msghdr {
    // SAFETY: all zeros is a message of nothing.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = length;
    message
}

/// Takes all stamps from the error queue of `socket`; says how many there were.
pub fn drain(socket: &impl AsRawFd, mut each: impl FnMut(TransmitStamp)) -> usize {
    let mut taken = 0;
    loop {
        let count = take_some::<AT_ONCE>(socket.as_raw_fd(), &mut each);
        taken += count;
        if count < AT_ONCE {
            return taken;
        }
    }
}

/// Takes one stamp from the error queue of `socket`, if there is one; says how many that were.
pub fn take_one(socket: &impl AsRawFd, mut each: impl FnMut(TransmitStamp)) -> usize {
    let mut control = Control([0; CONTROL]);
    let mut message = message(ptr::null_mut(), 0, &mut control, CONTROL);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the message points to live memory of the length it gives, which the kernel only writes to.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    if count < 0 {
        return 0;
    }
    let there = message.msg_controllen.min(CONTROL);
    if let Some(stamp) = control_messages::transmitted(&control.0[..there]) {
        each(stamp);
    }
    1
}

fn take_some<const MOST: usize>(fd: RawFd, each: &mut impl FnMut(TransmitStamp)) -> usize {
    let mut controls = [const { Control([0; CONTROL]) }; MOST];
    // SAFETY: all zeros are messages of nothing.
    let mut messages: [libc::mmsghdr; MOST] = unsafe { zeroed() };
    for (message, control) in messages.iter_mut().zip(&mut controls) {
        message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = CONTROL;
    }
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the messages point to live memory of the lengths they give.
    let count = unsafe {
        libc::recvmmsg(
            fd,
            messages.as_mut_ptr(),
            MOST as u32,
            flags as _,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).unwrap_or_default();
    for (message, control) in messages.iter().zip(&controls).take(count) {
        let there = message.msg_hdr.msg_controllen.min(CONTROL);
        if let Some(stamp) = control_messages::transmitted(&control.0[..there]) {
            each(stamp);
        }
    }
    count
}

/// What the kernel knows of a TCP connection (`struct tcp_info` of include/uapi/linux/tcp.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// The shortest of the last five minutes (`net.ipv4.tcp_min_rtt_wlen`), the handshake's included.
    pub least_rtt: Duration,
    /// Segments that were sent again.
    pub retransmits: u32,
    /// Of those, the peer says that it had got them before (RFC 2883).
    pub needless: u32,
}

/// Asks for it.
pub fn tcp_info(socket: &impl AsRawFd) -> io::Result<TcpInfo> {
    /// Where `tcpi_rtt`, `tcpi_total_retrans`, `tcpi_min_rtt` and `tcpi_dsack_dups` are.
    const RTT: usize = 68;
    const RETRANSMITS: usize = 100;
    const LEAST_RTT: usize = 148;
    const NEEDLESS: usize = 216;
    let mut info = [0_u8; 220];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: both pointers are live and the length is that of the array.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let field = |at: usize| {
        let bytes = [info[at], info[at + 1], info[at + 2], info[at + 3]];
        u32::from_ne_bytes(bytes)
    };
    let micros = |at| Duration::from_micros(u64::from(field(at)));
    Ok(TcpInfo {
        rtt: micros(RTT),
        // It says u32::MAX before the first sample (`tcp_min_rtt` of include/linux/tcp.h).
        least_rtt: if field(LEAST_RTT) == u32::MAX {
            Duration::ZERO
        } else {
            micros(LEAST_RTT)
        },
        retransmits: field(RETRANSMITS),
        needless: field(NEEDLESS),
    })
}
