//! Datagrams with the local address that they came to, and are answered from.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use tokio::{io::Interest, net::UdpSocket};

use crate::latency::{Nanos, Stamps};

/// A datagram that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes of it.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Where it was sent to.
    pub to: IpAddr,
    /// When it came, if packets are stamped.
    pub came: Option<Stamps>,
}

/// Receives one; `None` if it does not say where it was sent to.
pub fn try_receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, nix::sys::socket::Timestamps);
    socket.try_io(Interest::READABLE, || {
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let (mut to, mut came) = (None, None);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    to = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                ControlMessageOwned::ScmTimestampsns(times) => {
                    let software = Nanos::of(times.system);
                    came = (software.0 > 0).then_some(Stamps {
                        software: Some(software),
                        hardware: None,
                    });
                }
                _ => {}
            }
        }
        let from = message.address.as_ref().and_then(socket_address);
        Ok(from.zip(to).map(|(from, to)| Received {
            length: message.bytes,
            from,
            to,
            came,
        }))
    })
}

/// Sends `bytes` from the local address `from`. A full buffer loses it, as datagrams may be.
pub fn send(socket: &UdpSocket, bytes: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<()> {
    let ipv4;
    let ipv6;
    let control = match from {
        IpAddr::V4(address) => {
            ipv4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(address).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            ControlMessage::Ipv4PacketInfo(&ipv4)
        }
        IpAddr::V6(address) => {
            ipv6 = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: 0,
            };
            ControlMessage::Ipv6PacketInfo(&ipv6)
        }
    };
    let to = SockaddrStorage::from(to);
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[control],
        MsgFlags::MSG_DONTWAIT,
        Some(&to),
    )?;
    Ok(())
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = address.as_sockaddr_in().map(|&address| {
        let address: std::net::SocketAddrV4 = address.into();
        address.into()
    });
    ipv4.or_else(|| {
        let address: std::net::SocketAddrV6 = (*address.as_sockaddr_in6()?).into();
        Some(address.into())
    })
}
