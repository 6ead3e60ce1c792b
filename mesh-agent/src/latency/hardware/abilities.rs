//! Which timestamps an interface can give.

use std::fmt;

use serde::Serialize;

use super::ioctls::TimestampInfo;

/// What `ethtool -T` shows of an interface, as far as it matters for other packets than those of PTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Abilities {
    /// Those that the kernel gives, as the driver gets packets and hands them up.
    pub software: Directions,
    /// Those that the card gives, of some packets at least: of those of PTP.
    pub hardware: Directions,
    /// Whether the card can stamp every packet as it comes in.
    pub hardware_receive_all: bool,
    /// N of `/dev/ptpN`, the clock that its stamps go by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<u32>,
    /// `HWTSTAMP_TX_*` that it can be set to, one bit each.
    pub transmit_types: u32,
    /// `HWTSTAMP_FILTER_*` that it can be set to, one bit each.
    pub receive_filters: u32,
}

/// Of which packets there are stamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Directions {
    /// As they leave.
    pub transmit: bool,
    /// As they come in.
    pub receive: bool,
}

impl From<TimestampInfo> for Abilities {
    fn from(info: TimestampInfo) -> Self {
        let can = |flag: libc::c_uint| info.so_timestamping & flag != 0;
        let offers = |set: u32, one: libc::c_uint| set & (1 << one) != 0;
        let software = can(libc::SOF_TIMESTAMPING_SOFTWARE);
        // Without raw stamps no card's stamp reaches a socket.
        let raw = can(libc::SOF_TIMESTAMPING_RAW_HARDWARE);
        let receives = raw && can(libc::SOF_TIMESTAMPING_RX_HARDWARE);
        Self {
            software: Directions {
                transmit: software && can(libc::SOF_TIMESTAMPING_TX_SOFTWARE),
                receive: software && can(libc::SOF_TIMESTAMPING_RX_SOFTWARE),
            },
            hardware: Directions {
                transmit: raw
                    && can(libc::SOF_TIMESTAMPING_TX_HARDWARE)
                    && offers(info.transmit_types, libc::HWTSTAMP_TX_ON),
                receive: receives && info.receive_filters & !(1 << libc::HWTSTAMP_FILTER_NONE) != 0,
            },
            hardware_receive_all: receives
                && offers(info.receive_filters, libc::HWTSTAMP_FILTER_ALL),
            clock: u32::try_from(info.clock).ok(),
            transmit_types: info.transmit_types,
            receive_filters: info.receive_filters,
        }
    }
}

impl Abilities {
    /// Whether the card can stamp any packet.
    pub fn has_hardware(&self) -> bool {
        self.hardware.transmit || self.hardware.receive
    }
}

impl fmt::Display for Abilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (software, hardware) = (self.software.words(), self.hardware.words());
        let only_ptp = self.hardware.receive && !self.hardware_receive_all;
        match (software, hardware) {
            (None, None) => formatter.write_str("none"),
            (Some(software), None) => write!(formatter, "software {software}; no hardware"),
            (software, Some(hardware)) => {
                write!(formatter, "software {}; ", software.unwrap_or("none"))?;
                write!(formatter, "hardware {hardware}")?;
                formatter.write_str(if only_ptp { " (PTP packets only)" } else { "" })
            }
        }
    }
}

impl Directions {
    const fn words(self) -> Option<&'static str> {
        match (self.transmit, self.receive) {
            (true, true) => Some("transmit and receive"),
            (true, false) => Some("transmit"),
            (false, true) => Some("receive"),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As SIOCETHTOOL gave them: an igb (82576), and the loopback interface.
    const IGB: (u32, i32, u32, u32) = (95, 0, 3, 4145);
    const LOOPBACK: (u32, i32, u32, u32) = (26, -1, 0, 0);

    fn abilities((flags, clock, transmit, receive): (u32, i32, u32, u32)) -> Abilities {
        TimestampInfo::new(flags, clock, transmit, receive).into()
    }

    #[test]
    fn a_card_with_a_clock_can_what_ethtool_shows() {
        let card = abilities(IGB);
        assert!(card.software.transmit && card.software.receive);
        assert!(card.hardware.transmit && card.hardware.receive);
        assert!(!card.hardware_receive_all);
        assert_eq!(card.clock, Some(0));
        assert_eq!(
            card.to_string(),
            "software transmit and receive; hardware transmit and receive (PTP packets only)"
        );
    }

    #[test]
    fn loopback_has_software_stamps_only() {
        let loopback = abilities(LOOPBACK);
        assert!(!loopback.has_hardware());
        assert_eq!(loopback.clock, None);
        assert_eq!(
            loopback.to_string(),
            "software transmit and receive; no hardware"
        );
    }

    #[test]
    fn a_device_without_anything_says_none() {
        assert_eq!(abilities((0, -1, 0, 0)).to_string(), "none");
    }

    #[test]
    fn stamps_that_no_socket_can_get_do_not_count() {
        let raw = libc::SOF_TIMESTAMPING_RAW_HARDWARE;
        assert!(!abilities((IGB.0 & !raw, 0, 3, 4145)).has_hardware());
    }

    #[test]
    fn a_card_that_offers_no_setting_but_off_has_no_hardware_stamps() {
        assert!(!abilities((IGB.0, 0, 1, 1)).has_hardware());
    }
}
