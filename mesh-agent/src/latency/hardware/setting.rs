//! Which packets a card stamps: what it is set to, and what we would have it set to.

use serde::{Deserialize, Serialize};

use super::Abilities;

/// `struct hwtstamp_config` (include/uapi/linux/net_tstamp.h), also as it is written to the record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Setting {
    /// `HWTSTAMP_FLAG_*`.
    pub flags: u32,
    /// One of `HWTSTAMP_TX_*`.
    pub transmit: u32,
    /// One of `HWTSTAMP_FILTER_*`.
    pub receive: u32,
}

impl Setting {
    /// Whether any packet is stamped.
    pub fn is_on(self) -> bool {
        self.stamps_sent() || self.stamps_received()
    }

    /// Whether packets are stamped as they leave.
    pub fn stamps_sent(self) -> bool {
        self.transmit != libc::HWTSTAMP_TX_OFF
    }

    /// Whether some packets are stamped as they come in.
    pub fn stamps_received(self) -> bool {
        self.receive != libc::HWTSTAMP_FILTER_NONE
    }

    /// Whether every packet is stamped as it comes in, not those of PTP only.
    pub fn stamps_all_received(self) -> bool {
        self.receive == libc::HWTSTAMP_FILTER_ALL
    }

    /// What is worth switching on for requests of applications: packets as they leave, and, where the
    /// card can tell more than those of PTP, as they come in. `None` if neither.
    pub fn wanted(abilities: &Abilities) -> Option<Self> {
        let transmit = if abilities.hardware.transmit {
            libc::HWTSTAMP_TX_ON
        } else {
            libc::HWTSTAMP_TX_OFF
        };
        let receive = if abilities.hardware_receive_all {
            libc::HWTSTAMP_FILTER_ALL
        } else {
            libc::HWTSTAMP_FILTER_NONE
        };
        let setting = Self {
            flags: 0,
            transmit,
            receive,
        };
        setting.is_on().then_some(setting)
    }
}
