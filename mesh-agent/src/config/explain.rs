//! The YAML library's errors in the operator's words.

use serde_saphyr::{Error, Location, UserMessageFormatter};

use super::accepted::{accepted, instead_of, listed, nearest};
use super::document::{Document, Position};
use super::field_path::FieldPath;
use super::finding::Finding;
use super::yaml;

/// What `error`, met at `path` of `text`, means. Never more than one line.
pub(super) fn explain(error: &Error, path: FieldPath, text: &str) -> (Finding, Position) {
    let error = error.without_snippet();
    let location = error.location().unwrap_or(Location::UNKNOWN);
    if let Error::AliasError { error, .. } = error {
        // The alias is where the value is used, and that is the field it is wrong for.
        return (explain(error, path, text).0, location.into());
    }
    let at_location = Position::from(location);
    if let Error::UnsupportedTag { tag, .. } | Error::TaggedStructFieldName { tag, .. } = error {
        return about_tag(tag, path, text, location);
    }
    match about_keys(error, &path).or_else(|| about_yaml(error, &path)) {
        Some(finding) => (finding, at_location),
        None => about_value(error, path, text, location),
    }
}

/// Keys that are unknown, missing or given twice.
fn about_keys(error: &Error, path: &FieldPath) -> Option<Finding> {
    Some(match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => {
            let path = if path.last_field() == Some(field) {
                path.clone()
            } else {
                path.field(field)
            };
            let parent = path.parent();
            Finding::new(path, "unknown field", instead_of(field, &parent, expected))
        }
        Error::SerdeMissingField { field, .. } => {
            let path = path.field(field);
            let remedy = format!("add {}", accepted(&path.pattern()).unwrap_or("it"));
            Finding::new(path, "is missing", remedy)
        }
        Error::DuplicateMappingKey { key, .. } => {
            let path = key
                .as_ref()
                .map_or_else(|| path.clone(), |key| path.field(key));
            Finding::new(path, "is given twice", "keep one of them")
        }
        Error::ExpectedMappingEndAfterEnumVariantValue { .. } => Finding::new(
            path.parent(),
            "more than one choice is given",
            "keep one of them",
        ),
        _ => return None,
    })
}

/// What is wrong with the text as YAML, whatever the field.
fn about_yaml(error: &Error, path: &FieldPath) -> Option<Finding> {
    let found = |problem: &str, remedy: &str| Some(Finding::new(path.clone(), problem, remedy));
    let too_much = || {
        found(
            "the file is too large or nested too deeply, its aliases expanded",
            "write it flatter, with fewer aliases",
        )
    };
    match error {
        // The scanner has a limit of its own, which it reports as one more kind of bad syntax.
        Error::ExternalMessage { msg, .. } if msg.contains("recursion limit") => too_much(),
        Error::ExternalMessage { msg, .. } => found(
            &format!("is not valid YAML: {}", msg.trim()),
            "check indentation, brackets, colons and quotes from here upwards",
        ),
        Error::Eof { .. } => found("the file ends too soon", "check brackets and quotes"),
        Error::MultipleDocuments { .. } => found(
            "a second YAML document starts here",
            "keep one document per file",
        ),
        Error::MergeKeyNotAllowed { .. } => {
            found("merge keys (`<<`) are not allowed", "write the fields out")
        }
        Error::UnknownAnchor { .. } => found(
            "there is no anchor of this name above",
            "define it with `&`, or write the value out",
        ),
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => too_much(),
        _ => None,
    }
}

/// A tag of the user's own before the value at `location`.
fn about_tag(tag: &str, path: FieldPath, text: &str, location: Location) -> (Finding, Position) {
    // The parser has moved on to the value when it notices, and does not say which field that is.
    let tagged = Document::parse(text)
        .ok()
        .and_then(|document| document.path_at(location));
    let problem = format!("tag {} is not allowed", yaml::quoted(tag));
    let finding = Finding::new(tagged.unwrap_or(path), problem, "remove the tag");
    let before_value = location.span().byte_offset().and_then(|offset| {
        let before = text.get(..usize::try_from(offset).ok()?)?;
        before
            .rfind(tag)
            .map(|tag_start| Position::after(&before[..tag_start]))
    });
    (finding, before_value.unwrap_or_else(|| location.into()))
}

/// A value that is not what its field accepts.
fn about_value(
    error: &Error,
    path: FieldPath,
    text: &str,
    location: Location,
) -> (Finding, Position) {
    // The tree knows best where the value starts; a file with a second fault has none.
    let document = Document::parse(text).ok();
    let (found, position) = match &document {
        Some(document) => (document.describe(&path), document.position(&path)),
        None => (yaml::quoted_at(text, location), location.into()),
    };
    let mut remedy = accepted(&path.pattern()).map(|accepted| format!("write {accepted}"));
    let problem = match error {
        _ if found.is_none() && remedy.is_some() => "has no value".to_owned(),
        // Our own types say what is wrong, and start with the value.
        Error::Message { msg, .. } if msg.starts_with('`') => msg.clone(),
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => {
            remedy = Some(match nearest(variant, expected) {
                Some(near) => format!("did you mean `{near}`?"),
                None => remedy.unwrap_or_else(|| format!("write one of {}", listed(expected))),
            });
            format!("{} is unknown here", yaml::quoted(variant))
        }
        _ => match found.filter(|_| remedy.is_some()) {
            Some(found) => format!("{found} does not fit here"),
            None => error.render_with_formatter(&UserMessageFormatter),
        },
    };
    let remedy = remedy.unwrap_or_else(|| "see docs/configuration.md".to_owned());
    (Finding::new(path, problem, remedy), position)
}
