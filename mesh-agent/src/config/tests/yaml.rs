//! What is refused as YAML, before or whatever the configuration.

use std::fmt::Write as _;

use super::{check, refusal};

#[test]
fn yaml_that_is_none() {
    check(&[
        (
            "agent:\n\tmetrics: off\n",
            "2:2: top level: is not valid YAML: tabs disallowed within this context (block \
             indentation); check indentation, brackets, colons and quotes from here upwards",
        ),
        (
            "agent:\n  metrics: \"off\n",
            "2:12: agent: is not valid YAML: unclosed quote; check indentation, brackets, colons \
             and quotes from here upwards",
        ),
        (
            "agent: {metrics: off\n",
            "1:8: agent: is not valid YAML: unclosed bracket '{'; check indentation, brackets, \
             colons and quotes from here upwards",
        ),
        (
            "agent:\n  drainTimeout: 5s\n pods: []\n",
            "3:2: top level: is not valid YAML: while parsing a block mapping, did not find \
             expected key; check indentation, brackets, colons and quotes from here upwards",
        ),
        (
            "pods: []\n---\npods: []\n",
            "3:1: top level: a second YAML document starts here; keep one document per file",
        ),
    ]);
}

#[test]
fn yaml_beyond_plain_data() {
    check(&[
        (
            "agent:\n  metrics: !secret off\n",
            "2:12: agent.metrics: tag `!secret` is not allowed; remove the tag",
        ),
        (
            "pods:\n  - !pod\n    name: a\n    netns: /a\n",
            "2:5: pods[0]: tag `!pod` is not allowed; remove the tag",
        ),
        (
            "agent:\n  cgroup: !include other.yaml\n",
            "2:11: agent.cgroup: tag `!include` is not allowed; remove the tag",
        ),
        (
            "pods:\n  - &a {name: a, netns: /a}\n  - {<<: *a, name: b}\n",
            "3:6: pods[1]: merge keys (`<<`) are not allowed; write the fields out",
        ),
        (
            "pods: *all\n",
            "1:7: top level: there is no anchor of this name above; define it with `&`, or write \
             the value out",
        ),
    ]);
}

#[test]
fn bombs_are_defused() {
    let deep = format!("pods: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let line = refusal(&deep);
    assert!(
        line.contains("pods: the file is too large or nested too deeply"),
        "{line}"
    );

    // Ten aliases of ten aliases, ten levels deep, with and without a place in the schema.
    for field in ["pods", "bomb"] {
        let levels = (1..10).fold("&a0 [x]".to_owned(), |below, level| {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            format!("&a{level} [{below}, {aliases}]")
        });
        let line = refusal(&format!("{field}: {levels}"));
        assert!(line.starts_with("mesh.yaml:1:"), "{line}");
    }

    // The same where fields are known: ports shared by ever more pods, until it is too much.
    let ports = vec!["22"; 10_000].join(",");
    let mut shared = format!("pods:\n- {{name: a, netns: /a, excludePorts: &p [{ports}]}}\n");
    for pod in 0..100 {
        writeln!(
            shared,
            "- {{name: b{pod}, netns: /b{pod}, excludePorts: *p}}"
        )
        .unwrap();
    }
    assert!(
        refusal(&shared).contains("too large or nested"),
        "{}",
        refusal(&shared)
    );

    let huge = format!("# {}", "x".repeat(9 << 20));
    assert_eq!(
        refusal(&huge),
        "mesh.yaml: is larger than 8 MiB; check that this is the configuration file"
    );
}

#[test]
fn an_alias_is_wrong_where_it_is_used() {
    check(&[(
        "pods:\n  - {name: &n b, netns: /a}\n  - {name: c, netns: /b, onAgentDown: *n}\n",
        "3:39: pods[1].onAgentDown: `b` is unknown here; write `open` or `closed`",
    )]);
}
