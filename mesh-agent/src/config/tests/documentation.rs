//! `docs/configuration.md` cannot drift from the code.

use super::super::accepted::ACCEPTED;
use super::super::parse;
use super::refusal;

const MANUAL: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/configuration.md"
));

/// The fenced blocks as (info string, content), in order.
fn blocks() -> Vec<(&'static str, &'static str)> {
    // Odd pieces are inside a fence.
    let pieces = MANUAL.split("```").skip(1).step_by(2);
    pieces
        .map(|piece| piece.split_once('\n').unwrap())
        .collect()
}

#[test]
fn every_example_is_valid() {
    let examples = blocks().into_iter().filter(|(info, _)| *info == "yaml");
    let mut count = 0;
    for (_, example) in examples {
        let loaded = parse(example, "mesh.yaml");
        assert!(loaded.is_ok(), "{}\n{example}", loaded.unwrap_err());
        count += 1;
    }
    assert!(count >= 3, "the examples are found");
}

#[test]
fn every_refusal_is_the_real_one() {
    let blocks = blocks();
    let mut count = 0;
    for pair in blocks.windows(2).filter(|pair| pair[0].0 == "yaml refused") {
        assert_eq!(
            pair[1].0, "text",
            "a refused example is followed by its refusal"
        );
        assert_eq!(refusal(pair[0].1), pair[1].1.trim_end());
        count += 1;
    }
    assert!(count >= 5, "the refused examples are found");
}

#[test]
fn every_field_is_described() {
    for (field, _) in ACCEPTED {
        let choice = *field == "pods[].proxy.agent" || field.ends_with("[]") || field.is_empty();
        assert!(
            choice || MANUAL.contains(&format!("`{field}`")),
            "{field} is not described"
        );
    }
}
