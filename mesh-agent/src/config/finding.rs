//! Something noticed about a field, before its place in the file is known.

use super::document::Position;
use super::error::{ConfigError, OneLine};
use super::field_path::FieldPath;

/// What is wrong with, or remarkable about, one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) path: FieldPath,
    pub(super) problem: String,
    pub(super) remedy: String,
    /// Another field the problem is about; its line is added to the message.
    pub(super) other: Option<FieldPath>,
}

impl Finding {
    pub(super) fn new(
        path: FieldPath,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            path,
            problem: problem.into(),
            remedy: remedy.into(),
            other: None,
        }
    }

    /// The finding as an error of the source called `file`.
    pub(super) fn into_error(self, file: &str, at: Position) -> ConfigError {
        ConfigError::Invalid {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            field: self.path.to_string(),
            problem: self.problem,
            remedy: self.remedy,
        }
    }

    /// The finding as one line of warning, in the shape of an error.
    pub(super) fn into_warning(self, file: &str, at: Position) -> String {
        let Position { line, column } = at;
        let (file, problem, remedy) =
            (OneLine(file), OneLine(&self.problem), OneLine(&self.remedy));
        format!("{file}:{line}:{column}: {}: {problem}; {remedy}", self.path)
    }
}
