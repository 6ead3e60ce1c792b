//! What is wrong with a configuration, in one line.

use std::fmt;

use thiserror::Error;

/// Why a configuration was refused. `Display` is one line:
/// `FILE:LINE:COL: FIELD: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file could not be read, or is no text of a sensible size. Nothing was parsed.
    #[error("{}: {}; {}", OneLine(file), OneLine(problem), OneLine(remedy))]
    Unreadable {
        /// Path of the file, as it was given.
        file: String,
        /// What went wrong.
        problem: String,
        /// What the operator can do.
        remedy: String,
    },
    /// The text is no valid configuration.
    #[error(
        "{}:{line}:{column}: {}: {}; {}",
        OneLine(file),
        OneLine(field),
        OneLine(problem),
        OneLine(remedy)
    )]
    Invalid {
        /// Name of the source, for a file its path.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// Path of the field, such as `pods[1].netns`; `top level` for the file as a whole.
        field: String,
        /// What is wrong.
        problem: String,
        /// What the operator can do.
        remedy: String,
    },
}

/// Text with every character escaped that could break a line of a log or a terminal.
pub(super) struct OneLine<'a>(pub(super) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.chars().try_for_each(|c| {
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                write!(f, "{}", c.escape_default())
            } else {
                f.write_char(c)
            }
        })
    }
}
