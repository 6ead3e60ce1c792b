//! bpf(2) commands that aya does not offer.
//!
//! `unsafe`: the commands take a union of C structs and raw pointers. Each wrapper builds its own
//! attributes, so nothing but plain values crosses this file's edge.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

// Commands of include/uapi/linux/bpf.h.
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Size of the attributes passed: the part of `union bpf_attr` that these commands use.
const ATTRIBUTES: usize = 64;

/// Zeroed attributes, filled in field by field at the offsets of the kernel's header.
#[repr(C, align(8))]
struct Attributes([u8; ATTRIBUTES]);

impl Attributes {
    const fn new() -> Self {
        Self([0; ATTRIBUTES])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn pointer<T: ?Sized>(self, offset: usize, target: *const T) -> Self {
        self.u64(offset, target.cast::<u8>() as u64)
    }

    fn fd(self, offset: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(offset, fd.as_raw_fd() as u32)
    }

    fn read_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }

    /// Runs the command.
    fn call(&mut self, command: libc::c_long) -> io::Result<i32> {
        // SAFETY: the attributes are live and as long as said; what they point to outlives the
        // call, because every caller keeps it on its own stack frame.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), ATTRIBUTES) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result as i32)
        }
    }
}

fn path_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens the object pinned at `path`.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    let fd = Attributes::new()
        .pointer(0, path.as_ptr())
        .call(BPF_OBJ_GET)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins `object` at `path`, which must not exist.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_string(path)?;
    Attributes::new()
        .pointer(0, path.as_ptr())
        .fd(8, object)
        .call(BPF_OBJ_PIN)
        .map(drop)
}

/// Attaches `program` to a cgroup or a network namespace, beside the programs that are there.
pub fn create_link(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let fd = Attributes::new()
        .fd(0, program)
        .fd(4, target)
        .u32(8, attach_type)
        .call(BPF_LINK_CREATE)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes an attached link run `program` from now on, without a moment in between.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    Attributes::new()
        .fd(0, link)
        .fd(4, program)
        .call(BPF_LINK_UPDATE)
        .map(drop)
}

/// Detaches a link at once, whoever else holds it.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    Attributes::new()
        .fd(0, link)
        .call(BPF_LINK_DETACH)
        .map(drop)
}

/// The cgroup that a cgroup link is attached to; 0 when that cgroup is gone.
pub fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    link_info(link).map(|info| info[2])
}

/// The inode of the network namespace that a link is attached to; 0 when it is gone.
pub fn link_netns(link: BorrowedFd<'_>) -> io::Result<u32> {
    link_info(link).map(|info| info[2] as u32)
}

/// `struct bpf_link_info`: type, id, prog_id, padding, then the union.
fn link_info(link: BorrowedFd<'_>) -> io::Result<[u64; 32]> {
    let mut info = [0_u64; 32];
    Attributes::new()
        .fd(0, link)
        .u32(4, size_of_val(&info) as u32)
        .pointer(8, info.as_mut_ptr())
        .call(BPF_OBJ_GET_INFO_BY_FD)?;
    Ok(info)
}

/// Ids of the programs on a hook of a cgroup. With `effective`, those of its ancestors too.
pub fn query_programs(
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
    effective: bool,
) -> io::Result<Vec<u32>> {
    const BPF_F_QUERY_EFFECTIVE: u32 = 1;
    let mut ids = [0_u32; 64];
    let mut attributes = Attributes::new()
        .fd(0, cgroup)
        .u32(4, attach_type)
        .u32(8, if effective { BPF_F_QUERY_EFFECTIVE } else { 0 })
        .pointer(16, ids.as_mut_ptr())
        .u32(24, ids.len() as u32);
    attributes.call(BPF_PROG_QUERY)?;
    let count = (attributes.read_u32(24) as usize).min(ids.len());
    Ok(ids[..count].to_vec())
}

/// Writes `value` for the socket `socket` into a socket storage map.
pub fn update_socket_storage(
    map: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    value: &[u8],
) -> io::Result<()> {
    let key = socket.as_raw_fd();
    Attributes::new()
        .fd(0, map)
        .pointer(8, &raw const key)
        .pointer(16, value.as_ptr())
        .call(BPF_MAP_UPDATE_ELEM)
        .map(drop)
}
