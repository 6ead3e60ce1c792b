//! Tests of the configuration as its users meet it: text in, values or one line out.

// Test code may unwrap.
#![allow(clippy::unwrap_used)]

mod accepted;
mod documentation;
mod files;
mod properties;
mod protection;
mod refused;
mod yaml;

use super::parse;

/// The one line that `text` is refused with.
fn refusal(text: &str) -> String {
    parse(text, "mesh.yaml")
        .map(|loaded| format!("accepted: {loaded:?}"))
        .unwrap_err()
        .to_string()
}

/// A file with one sound pod that also has `fields`, from column 5 of line 4 on.
fn pod_with(fields: &str) -> String {
    format!("pods:\n  - name: client\n    netns: /run/netns/client\n    {fields}\n")
}

/// Each text with the refusal it gets, the file's name left out.
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(
            refusal(text),
            format!("mesh.yaml:{expected}"),
            "for {text:?}"
        );
    }
}

/// Each piece of a pod, on line 4 from column 5 on, with the refusal it gets.
fn check_pod(cases: &[(&str, &str)]) {
    for (fields, expected) in cases {
        assert_eq!(
            refusal(&pod_with(fields)),
            format!("mesh.yaml:{expected}"),
            "for {fields:?}"
        );
    }
}
