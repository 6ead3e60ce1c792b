//! A link between two pods that delays every packet by a known time.
//!
//! Kernels without sch_netem have no such thing, so it is a program of the tests' own between two tun
//! devices. What goes over it is what the pods send to each other's addresses on the link; their
//! ordinary network stays as it is.

use std::{io::Write as _, process::ChildStdin, time::Duration};

use anyhow::{Context as _, Result};

use crate::{pod::Pod, process::Process};

/// How long the program may take to start.
const START: Duration = Duration::from_secs(10);

/// One end of a [`DelayedLink`].
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its IPv4 address on the link, without prefix length: /24.
    pub address: &'a str,
    /// How long packets that this pod sends are kept. The other end's times add up to the round trip.
    pub delay: Duration,
}

/// The link; goes down when dropped.
pub struct DelayedLink {
    _forwarder: Process,
    /// Where it is told what to do from now on.
    orders: ChildStdin,
}

impl DelayedLink {
    /// Joins two pods by a link of the name `device`, which must be new to both (15 characters).
    ///
    /// Measured on it: 300 to 500 µs above the sum of the delays, as long as both ends are prompt
    /// (`be_prompt` of `tests/programs/peer.py`).
    pub fn between(device: &str, from: End<'_>, to: End<'_>) -> Result<Self> {
        for end in [from, to] {
            end.pod.ip(&format!(
                "tuntap add dev {device} mode tun\n\
                 addr add {}/24 dev {device}\n\
                 link set {device} up txqueuelen 10000\n",
                end.address
            ))?;
        }
        let namespace = |end: End<'_>| end.pod.netns_path().display().to_string();
        let microseconds = |end: End<'_>| end.delay.as_micros().to_string();
        let mut forwarder = from.pod.spawn_python(
            "delayed_link.py",
            [
                device,
                &namespace(from),
                &microseconds(from),
                &namespace(to),
                &microseconds(to),
            ],
        )?;
        forwarder
            .wait_stdout("ready", START)
            .context("a delayed link needs the kernel's tun driver (/dev/net/tun)")?;
        let orders = forwarder.take_stdin().context("no standard input")?;
        Ok(Self {
            _forwarder: forwarder,
            orders,
        })
    }

    /// From now on packets that the first end sends are kept for so long, and those of the second. What is
    /// under way stays in order.
    pub fn delay(&mut self, forth: Duration, back: Duration) -> Result<()> {
        let (forth, back) = (forth.as_micros(), back.as_micros());
        Ok(writeln!(self.orders, "{forth} {back}")?)
    }

    /// The next `count` TCP segments with data that the first end sends are lost.
    pub fn lose(&mut self, count: u32) -> Result<()> {
        Ok(writeln!(self.orders, "lose {count}")?)
    }
}
