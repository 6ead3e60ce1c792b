//! What the kernel tells of network interfaces that come, change and go (rtnetlink(7), group
//! `RTNLGRP_LINK`), in the network namespace of the thread that began to listen.
//!
//! `unsafe`: the runtime trusts that a descriptor stays open as long as the object that reports it.
#![allow(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_sys::{
    Socket as NetlinkSocket, SocketAddr as NetlinkAddress, protocols::NETLINK_ROUTE,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

/// Bit of the group in the mask that a socket is bound with.
const LINKS: u32 = 1 << (libc::RTNLGRP_LINK - 1);
/// More than one message is: they grow with the attributes that kernels add, and with virtual functions.
const LONGEST: usize = 64 << 10;
/// `struct ifinfomsg`: the attributes come after it.
const HEADER: usize = size_of::<libc::ifinfomsg>();
/// An interface that comes has several messages at once, and its driver is ready only after the first.
const QUIET: Duration = Duration::from_millis(250);

/// What became of interfaces lately.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Numbers of those that went, and came back if they are among `there`.
    pub gone: BTreeMap<u32, Departure>,
    /// Numbers of those that came or changed, and were there at last.
    pub there: BTreeSet<u32>,
    /// Messages were lost: anything may have changed.
    pub are_incomplete: bool,
}

/// How an interface went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// It is no more.
    Removed,
    /// It went to another network namespace, and may come back as it is.
    Moved,
}

impl Changes {
    /// Takes the messages of one datagram in. What is of no interest, or no message at all, is passed over.
    fn take(&mut self, mut datagram: &[u8]) {
        while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
            let kind = message.message_type();
            self.take_one(
                kind,
                &datagram[size_of::<libc::nlmsghdr>()..message.length() as usize],
            );
            let next = (message.length() as usize).next_multiple_of(4);
            datagram = datagram.get(next..).unwrap_or_default();
        }
    }

    fn take_one(&mut self, kind: u16, message: &[u8]) {
        let Some((header, attributes)) = message.split_at_checked(HEADER) else {
            return;
        };
        // One that leaves a bridge is told of as deleted, too: of the family of bridges.
        if i32::from(header[0]) != libc::AF_UNSPEC {
            return;
        }
        let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        match kind {
            libc::RTM_NEWLINK => {
                self.there.insert(index);
            }
            libc::RTM_DELLINK => {
                let mut attributes = NlasIterator::new(attributes).flatten();
                let moved = attributes.any(|attribute| attribute.kind() == libc::IFLA_NEW_NETNSID);
                self.there.remove(&index);
                let departure = if moved {
                    Departure::Moved
                } else {
                    Departure::Removed
                };
                // One that was moved here and is gone for good since is gone for good.
                let known = self.gone.entry(index).or_insert(departure);
                if departure == Departure::Removed {
                    *known = departure;
                }
            }
            _ => {}
        }
    }
}

/// A socket that gets those messages.
#[derive(Debug)]
pub(super) struct Links(NetlinkSocket);

impl Links {
    /// Begins to listen.
    pub fn open() -> io::Result<Self> {
        let mut socket = NetlinkSocket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&NetlinkAddress::new(0, LINKS))?;
        Ok(Self(socket))
    }

    /// What has come since the last time.
    pub fn changes(&self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        let mut datagram = Vec::with_capacity(LONGEST);
        loop {
            datagram.clear();
            match self.0.recv(&mut datagram, 0) {
                Ok(_) => changes.take(&datagram),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel had no room for more.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes.are_incomplete = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The same, waited for on the runtime that this runs on.
    pub fn watch(self) -> io::Result<Watched> {
        // SAFETY: `Owned` owns its descriptor and never exchanges it.
        let watched = unsafe { AsyncFd::register_with_interest(Owned(self), Interest::READABLE) };
        Ok(Watched(watched.map_err(io::Error::from)?))
    }
}

/// Has the descriptor that it reports.
#[derive(Debug)]
struct Owned(Links);

impl AsRawFd for Owned {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// [`Links`] on a runtime.
#[derive(Debug)]
pub(super) struct Watched(AsyncFd<Owned>);

impl Watched {
    /// The next changes, [`QUIET`] after the first of them. May be dropped meanwhile: nothing is lost.
    pub async fn next(&self) -> io::Result<Changes> {
        let mut ready = self.0.readable().await?;
        sleep(QUIET).await;
        ready.clear_ready();
        self.0.get_ref().0.changes()
    }
}

/// The same where there may be nothing to listen to: waits for ever then.
pub(super) async fn next_of(watched: Option<&Watched>) -> io::Result<Changes> {
    match watched {
        Some(watched) => watched.next().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, process::Command, thread};

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// As Linux 6.18 sent them: the end of a veth pair comes (2); one comes to be a port of a bridge (3), and
    /// is none any more; one is moved to another namespace (6); one is deleted (3).
    const RECORDED: &[u8] = include_bytes!("link_messages.bin");

    #[test]
    fn recorded_messages_say_what_came_and_how_others_went() {
        let mut changes = Changes::default();
        changes.take(RECORDED);
        assert_eq!(changes.there, BTreeSet::from([2]));
        let gone = [(3, Departure::Removed), (6, Departure::Moved)];
        assert_eq!(changes.gone, BTreeMap::from(gone));
        assert!(!changes.are_incomplete);
    }

    #[test]
    fn a_datagram_that_is_cut_anywhere_says_no_more_than_the_whole() {
        for length in 0..RECORDED.len() {
            let mut changes = Changes::default();
            changes.take(&RECORDED[..length]);
            assert!(changes.there.is_subset(&BTreeSet::from([2])));
            assert!(changes.gone.keys().all(|index| [3, 6].contains(index)));
        }
    }

    #[test]
    fn one_that_went_and_came_back_is_both() {
        let mut changes = Changes::default();
        changes.take(RECORDED);
        let mut back = RECORDED[..1496].to_vec();
        back[20] = 3;
        changes.take(&back);
        assert_eq!(changes.there, BTreeSet::from([2, 3]));
        assert_eq!(changes.gone[&3], Departure::Removed);
    }

    fn ip(command: &str) {
        let output = Command::new("ip").args(command.split_whitespace()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }

    fn index_of(name: &str) -> u32 {
        nix::net::if_::if_nametoindex(name).unwrap()
    }

    /// In namespaces of its own, which go with the thread. Needs root.
    #[test]
    fn the_kernel_tells_of_interfaces_that_come_move_and_go() {
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let links = Links::open().unwrap();
            assert_eq!(links.changes().unwrap(), Changes::default());
            ip("link add card0 type veth peer name peer0");
            let (card, peer) = (index_of("card0"), index_of("peer0"));
            let came = links.changes().unwrap();
            assert_eq!(came.there, BTreeSet::from([card, peer]));
            assert!(came.gone.is_empty());

            ip("link add bridge0 type bridge");
            ip("link set card0 master bridge0");
            links.changes().unwrap();
            ip("link set card0 nomaster");
            let left = links.changes().unwrap();
            assert!(
                left.there.contains(&card) && left.gone.is_empty(),
                "{left:?}"
            );

            let holder = thread::spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                File::open("/proc/thread-self/ns/net").unwrap()
            });
            let elsewhere = holder.join().unwrap();
            let path = format!("/proc/{}/fd/{}", std::process::id(), elsewhere.as_raw_fd());
            ip(&format!("link set card0 netns {path}"));
            let moved = links.changes().unwrap();
            assert_eq!(moved.gone, BTreeMap::from([(card, Departure::Moved)]));

            ip("link del peer0");
            let gone = links.changes().unwrap();
            assert_eq!(gone.gone, BTreeMap::from([(peer, Departure::Removed)]));
            assert!(!gone.there.contains(&peer));
        };
        thread::spawn(test).join().unwrap();
    }

    #[test]
    fn messages_that_were_lost_are_owned_up_to() {
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let links = Links::open().unwrap();
            links.0.set_rx_buf_sz(1_i32).unwrap();
            for number in 0..8 {
                ip(&format!(
                    "link add card{number} type veth peer name peer{number}"
                ));
            }
            assert!(links.changes().unwrap().are_incomplete);
            assert_eq!(links.changes().unwrap(), Changes::default());
        };
        thread::spawn(test).join().unwrap();
    }
}
