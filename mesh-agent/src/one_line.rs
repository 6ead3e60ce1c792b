//! An error and its causes as one line.

/// The error and its causes, each said once: many messages already contain their cause's.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::one_line;

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let error = anyhow!("no room").context("pod a: no room; make some");
        assert_eq!(one_line(&error), "pod a: no room; make some");
    }

    #[test]
    fn other_causes_follow() {
        let error = anyhow!("disk\nfull").context("cannot write");
        assert_eq!(one_line(&error), "cannot write: disk full");
    }
}
