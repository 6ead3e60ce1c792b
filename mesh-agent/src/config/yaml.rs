//! The dialect of YAML the file may use: plain data, within bounds.

use serde_saphyr::options::{MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Deserializer, Error, Location, Options};

/// Largest text that is parsed, in bytes: room for some 40,000 pods.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// Longest piece of the file that is repeated in a message, in characters.
const MAX_QUOTED: usize = 60;

/// Runs `read` on the one document in `text`.
pub(super) fn parse<'text, Value>(
    text: &'text str,
    tags: Tags,
    read: impl for<'state> FnOnce(Deserializer<'text, 'state>) -> Result<Value, Error>,
) -> Result<Value, Error> {
    serde_saphyr::with_deserializer_from_str_with_options(text, options(tags), read)
}

/// What becomes of tags other than YAML's own (`!name`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tags {
    /// An error.
    Refuse,
    /// Skipped, to find out where in the tree one stands.
    Ignore,
}

fn options(tags: Tags) -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        reject_unsupported_tags: tags == Tags::Refuse,
        reject_tagged_field_names: tags == Tags::Refuse,
        merge_keys: MergeKeyPolicy::Error,
        // Only the untyped tree meets floats, and there they are just text.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        // A list shared by many pods is fine, an alias that multiplies is not.
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 200_000,
            max_replay_stack_depth: 8,
        },
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(MAX_BYTES),
            max_events: 3_000_000,
            max_nodes: 1_000_000,
            max_depth: 16,
            max_anchors: 1_000,
            max_aliases: 100_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: MAX_BYTES,
            max_total_scalar_bytes: MAX_BYTES,
            enforce_alias_anchor_ratio: false,
        },
    }
}

/// The value written at `location`: a scalar in backquotes and cut short, or what kind of thing it
/// is. `None` where nothing is written.
pub(super) fn quoted_at(text: &str, location: Location) -> Option<String> {
    let span = location.span();
    let range = span
        .byte_offset()
        .zip(span.byte_len())
        .and_then(|(offset, len)| {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(len).ok()?)?;
            text.get(start..end)
        });
    match range.map(str::trim) {
        None => Some("this value".to_owned()),
        Some("") => None,
        Some("[") => Some("a list".to_owned()),
        Some("{") => Some("a mapping".to_owned()),
        Some(scalar) => Some(quoted(scalar)),
    }
}

/// `scalar` in backquotes, cut short.
pub(super) fn quoted(scalar: &str) -> String {
    match scalar.char_indices().nth(MAX_QUOTED) {
        None => format!("`{scalar}`"),
        Some((end, _)) => format!("`{}…`", &scalar[..end]),
    }
}
