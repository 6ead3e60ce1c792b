//! Which packet timestamps the interfaces give: nothing that the agent cannot do without.

use super::Finding;
use crate::latency::hardware::Interface;

/// One finding for all interfaces of which the same is to be said; a node has many that are alike.
pub(super) fn interfaces(interfaces: &[Interface]) -> Vec<Finding> {
    const NAME: &str = "packet timestamps";
    let mut alike: Vec<(String, Vec<&str>)> = Vec::new();
    for interface in interfaces {
        let description = interface.description();
        match alike.iter_mut().find(|(known, _)| *known == description) {
            Some((_, names)) => names.push(&interface.name),
            None => alike.push((description, vec![&interface.name])),
        }
    }
    alike
        .into_iter()
        .map(|(description, names)| {
            Finding::ok(NAME, format!("{}: {description}", names.join(" ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::hardware::{Abilities, Directions};

    fn interface(name: &str, software: bool) -> Interface {
        Interface {
            name: name.into(),
            index: 1,
            abilities: Abilities {
                software: Directions {
                    transmit: software,
                    receive: software,
                },
                ..Abilities::default()
            },
            setting: None,
        }
    }

    #[test]
    fn none_is_left_out_and_those_alike_share_a_line() {
        let all = [
            interface("lo", true),
            interface("wg0", false),
            interface("veth0", true),
        ];
        let found: Vec<String> = interfaces(&all)
            .into_iter()
            .map(|finding| finding.found)
            .collect();
        assert_eq!(
            found,
            [
                "lo veth0: software transmit and receive; no hardware",
                "wg0: none"
            ]
        );
    }
}
