//! ioctl(2) commands about timestamps of network interfaces and their clocks.
//!
//! `unsafe`: the commands take pointers to C structs. Each wrapper builds its own, so nothing but plain
//! values crosses this file's edge.
#![allow(unsafe_code)]

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _},
};

use super::{Reading, Setting};
use crate::latency::{HardwareNanos, Nanos};

/// include/uapi/linux/sockios.h; glibc's half of libc has no name for it.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// include/uapi/linux/ethtool.h.
const ETHTOOL_GET_TS_INFO: u32 = 0x41;

/// `struct ethtool_ts_info`: what `ethtool -T` shows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TimestampInfo {
    command: u32,
    /// `SOF_TIMESTAMPING_*` flags.
    pub so_timestamping: u32,
    /// N of `/dev/ptpN`; negative if the interface has no clock.
    pub clock: i32,
    /// One bit for each `HWTSTAMP_TX_*`.
    pub transmit_types: u32,
    transmit_reserved: [u32; 3],
    /// One bit for each `HWTSTAMP_FILTER_*`.
    pub receive_filters: u32,
    receive_reserved: [u32; 3],
}

impl TimestampInfo {
    /// As a driver would tell them.
    #[cfg(test)]
    pub fn new(so_timestamping: u32, clock: i32, transmit: u32, receive: u32) -> Self {
        Self {
            so_timestamping,
            clock,
            transmit_types: transmit,
            receive_filters: receive,
            ..Self::default()
        }
    }
}

/// What the interface `name` can. `socket` is any of the same network namespace.
pub(super) fn timestamp_info(socket: &impl AsFd, name: &str) -> io::Result<TimestampInfo> {
    let mut info = TimestampInfo {
        command: ETHTOOL_GET_TS_INFO,
        ..TimestampInfo::default()
    };
    of_interface(socket, name, SIOCETHTOOL, &mut info)?;
    Ok(info)
}

/// Which hardware stamps the interface gives now.
pub(super) fn setting(socket: &impl AsFd, name: &str) -> io::Result<Setting> {
    let mut setting = Setting::default();
    of_interface(socket, name, libc::SIOCGHWTSTAMP, &mut setting)?;
    Ok(setting)
}

/// Asks for hardware stamps, and returns what the driver made of it: it may do more than was asked.
pub(super) fn set(socket: &impl AsFd, name: &str, mut setting: Setting) -> io::Result<Setting> {
    of_interface(socket, name, libc::SIOCSHWTSTAMP, &mut setting)?;
    Ok(setting)
}

/// Runs a command of `struct ifreq` whose data is a `T`, as the kernel defines that command.
fn of_interface<T>(
    socket: &impl AsFd,
    name: &str,
    command: libc::c_ulong,
    data: &mut T,
) -> io::Result<()> {
    // SAFETY: all zeros are an empty name and a null pointer.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // One byte stays for the zero at the end.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut *data).cast();
    ioctl(socket, command, &mut request)
}

fn ioctl<T>(fd: &impl AsFd, command: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: `argument` is the live struct that the command is defined with; what it points to outlives
    // the call, because the caller keeps it on its own stack frame.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), command, &raw mut *argument) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// How often the clock is read for one reading: the first times often wait for the bus to wake up.
const SAMPLES: usize = 9;

/// Reads a `/dev/ptpN` and the system's clock together: the best of several times, by the best way that
/// the driver has.
pub(super) fn read_clock(clock: &impl AsFd) -> io::Result<Reading> {
    match extended(clock) {
        Err(error) if is_unsupported(&error) => {}
        other => return other,
    }
    match precise(clock) {
        Err(error) if is_unsupported(&error) => {}
        other => return other,
    }
    plain(clock)
}

/// Drivers and kernels say it in different ways.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL | libc::ENOSYS)
    )
}

/// The driver takes the system's time right before and after it reads the card's.
fn extended(clock: &impl AsFd) -> io::Result<Reading> {
    // SAFETY: integers only.
    let mut offsets: libc::ptp_sys_offset_extended = unsafe { mem::zeroed() };
    offsets.n_samples = SAMPLES as u32;
    ioctl(clock, libc::PTP_SYS_OFFSET_EXTENDED, &mut offsets)?;
    best(
        offsets.ts[..SAMPLES]
            .iter()
            .map(|[before, hardware, after]| (before, hardware, after)),
    )
}

/// The card captures both at once.
fn precise(clock: &impl AsFd) -> io::Result<Reading> {
    // SAFETY: integers only.
    let mut offset: libc::ptp_sys_offset_precise = unsafe { mem::zeroed() };
    ioctl(clock, libc::PTP_SYS_OFFSET_PRECISE, &mut offset)?;
    let system = &offset.sys_realtime;
    best(std::iter::once((system, &offset.device, system)))
}

/// The kernel takes the system's time around the driver's call.
fn plain(clock: &impl AsFd) -> io::Result<Reading> {
    // SAFETY: integers only.
    let mut offsets: libc::ptp_sys_offset = unsafe { mem::zeroed() };
    offsets.n_samples = SAMPLES as u32;
    ioctl(clock, libc::PTP_SYS_OFFSET, &mut offsets)?;
    let readings = offsets.ts[..=2 * SAMPLES].windows(3).step_by(2);
    best(readings.filter_map(|three| match three {
        [before, hardware, after] => Some((before, hardware, after)),
        _ => None,
    }))
}

type Time = libc::ptp_clock_time;

/// The one with the least time between the system's two.
fn best<'a>(readings: impl Iterator<Item = (&'a Time, &'a Time, &'a Time)>) -> io::Result<Reading> {
    readings
        .filter_map(|(before, hardware, after)| {
            let (before, after) = (nanos(before)?, nanos(after)?);
            let window = after.checked_sub(before)?;
            Some(Reading {
                hardware: HardwareNanos(nanos(hardware)?),
                system: Nanos(before + window / 2),
                window,
            })
        })
        .min_by_key(|reading| reading.window)
        .ok_or_else(|| io::Error::other("the clock went backwards, or is before 1970"))
}

fn nanos(time: &Time) -> Option<u64> {
    u64::try_from(time.sec)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::from(time.nsec))
}
