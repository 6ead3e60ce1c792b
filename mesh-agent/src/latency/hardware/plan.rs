//! What is to be done with a card at the start of the agent, or when it comes: a decision, no more.

use super::{Interface, Setting, record::Entry};

/// What is to be done with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It has no stamps that requests of applications could get, or not yet.
    CannotStamp,
    /// Somebody else has set it: it is used as it is.
    Foreign,
    /// An earlier agent, which crashed, has set it: it stays so, and is restored in the end.
    Inherit,
    /// It is off: it is set to this.
    SwitchOn(Setting),
}

/// Decides by what the card can, what it is set to, and what an earlier agent that crashed wrote down.
pub(super) fn plan(interface: &Interface, earlier: Option<&Entry>) -> Plan {
    let Some(wanted) = Setting::wanted(&interface.abilities) else {
        return Plan::CannotStamp;
    };
    // Nobody could say when its stamps were. A card that just comes may have its clock a moment later.
    if interface.abilities.clock.is_none() {
        return Plan::CannotStamp;
    }
    // A driver that does not tell may be set by somebody: not to be touched.
    let Some(now) = interface.setting else {
        return Plan::Foreign;
    };
    if earlier.is_some_and(|entry| now.is_on() && entry.is_ours(now)) {
        Plan::Inherit
    } else if now.is_on() {
        Plan::Foreign
    } else {
        Plan::SwitchOn(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::hardware::{Abilities, Directions};

    const OFF: Setting = Setting {
        flags: 0,
        transmit: 0,
        receive: 0,
    };
    const SENT: Setting = Setting { transmit: 1, ..OFF };
    const ALL: Setting = Setting {
        transmit: 1,
        receive: 1,
        flags: 0,
    };

    /// A card that stamps what leaves, and of what comes in everything or PTP only.
    fn card(receive_all: bool, setting: Option<Setting>) -> Interface {
        Interface {
            name: "eth0".into(),
            index: 2,
            abilities: Abilities {
                hardware: Directions {
                    transmit: true,
                    receive: true,
                },
                hardware_receive_all: receive_all,
                clock: Some(0),
                ..Abilities::default()
            },
            setting,
        }
    }

    fn entry(former: Setting, asked: Setting, made: Option<Setting>) -> Entry {
        Entry {
            index: 2,
            device: None,
            former,
            asked,
            made,
        }
    }

    #[test]
    fn a_card_that_is_off_is_switched_on_as_far_as_it_can() {
        assert_eq!(plan(&card(false, Some(OFF)), None), Plan::SwitchOn(SENT));
        assert_eq!(plan(&card(true, Some(OFF)), None), Plan::SwitchOn(ALL));
    }

    #[test]
    fn a_card_that_another_tool_has_set_is_left_alone() {
        assert_eq!(plan(&card(true, Some(SENT)), None), Plan::Foreign);
        assert_eq!(plan(&card(true, None), None), Plan::Foreign);
    }

    #[test]
    fn what_a_crashed_agent_set_is_not_taken_for_the_former_setting() {
        let written = entry(OFF, ALL, None);
        assert_eq!(plan(&card(true, Some(ALL)), Some(&written)), Plan::Inherit);
        // It crashed between writing down and setting.
        assert_eq!(
            plan(&card(true, Some(OFF)), Some(&written)),
            Plan::SwitchOn(ALL)
        );
        // The driver did more than was asked.
        let written = entry(OFF, SENT, Some(ALL));
        assert_eq!(plan(&card(true, Some(ALL)), Some(&written)), Plan::Inherit);
        // Another tool has changed it since.
        let other = Setting { receive: 12, ..ALL };
        assert_eq!(
            plan(&card(true, Some(other)), Some(&written)),
            Plan::Foreign
        );
    }

    #[test]
    fn a_card_without_a_clock_is_not_worth_switching_on() {
        let mut without = card(true, Some(OFF));
        without.abilities.clock = None;
        assert_eq!(plan(&without, None), Plan::CannotStamp);
    }

    #[test]
    fn a_card_that_stamps_ptp_only_is_not_worth_switching_on() {
        let mut receives = card(false, Some(OFF));
        receives.abilities.hardware.transmit = false;
        assert_eq!(plan(&receives, None), Plan::CannotStamp);
    }
}
