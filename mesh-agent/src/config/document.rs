//! The file as an untyped tree that remembers where each value was written.
//!
//! The typed parse keeps no positions; what is found wrong after it (or by it, at a value) is
//! looked up here.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::field_path::{FieldPath, Step};
use super::yaml::{self, Tags};

/// Line and column, both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    /// Where the text after `text` starts.
    pub(super) fn after(text: &str) -> Self {
        let last_line = text.rsplit('\n').next().unwrap_or_default();
        Self {
            line: text.matches('\n').count() + 1,
            column: last_line.chars().count() + 1,
        }
    }
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        let from_one = |value: u64| usize::try_from(value).unwrap_or(usize::MAX).max(1);
        Self {
            line: from_one(location.line()),
            column: from_one(location.column()),
        }
    }
}

/// The parsed tree of one file.
pub(super) struct Document<'text> {
    text: &'text str,
    root: Spanned<Node>,
}

/// A value of the tree.
enum Node {
    Scalar,
    List(Vec<Spanned<Node>>),
    Mapping(Vec<(String, Spanned<Node>)>),
}

impl<'text> Document<'text> {
    pub(super) fn parse(text: &'text str) -> Result<Self, serde_saphyr::Error> {
        // Tags are the typed parse's business.
        let root = yaml::parse(text, Tags::Ignore, |deserializer| {
            Spanned::deserialize(deserializer)
        })?;
        Ok(Self { text, root })
    }

    /// Position of the value at `path`, or of the nearest value above it that is in the file.
    pub(super) fn position(&self, path: &FieldPath) -> Position {
        self.nearest(path).referenced.into()
    }

    /// What stands at `path` (or nearest above it), for a message: its text, `a list`, `a mapping`.
    /// `None` where nothing does.
    pub(super) fn describe(&self, path: &FieldPath) -> Option<String> {
        let node = self.nearest(path);
        match node.value {
            Node::List(_) => Some("a list".to_owned()),
            Node::Mapping(_) => Some("a mapping".to_owned()),
            Node::Scalar => yaml::quoted_at(self.text, node.defined),
        }
    }

    /// Path of the outermost value that starts at `location`.
    pub(super) fn path_at(&self, location: Location) -> Option<FieldPath> {
        path_below(&self.root, location.into(), &FieldPath::default())
    }

    fn nearest(&self, path: &FieldPath) -> &Spanned<Node> {
        let mut node = &self.root;
        for step in path.steps() {
            let below = match (&node.value, step) {
                (Node::List(items), Step::Index(index)) => items.get(*index),
                (Node::Mapping(entries), Step::Field(name)) => entries
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value),
                _ => None,
            };
            let Some(below) = below else { break };
            node = below;
        }
        node
    }
}

fn path_below(node: &Spanned<Node>, sought: Position, path: &FieldPath) -> Option<FieldPath> {
    if Position::from(node.referenced) == sought {
        return Some(path.clone());
    }
    match &node.value {
        Node::Scalar => None,
        Node::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| path_below(item, sought, &path.index(index))),
        Node::Mapping(entries) => entries
            .iter()
            .find_map(|(key, value)| path_below(value, sought, &path.field(key))),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

/// Scalars of every type are one kind of node: what they mean is the typed parse's business.
macro_rules! scalars {
    ($($method:ident($type:ty)),*) => {
        $(fn $method<E>(self, _: $type) -> Result<Node, E> {
            Ok(Node::Scalar)
        })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    scalars!(
        visit_bool(bool),
        visit_i64(i64),
        visit_u64(u64),
        visit_i128(i128),
        visit_u128(u128),
        visit_f64(f64),
        visit_str(&str),
        visit_bytes(&[u8])
    );

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Mapping(entries))
    }
}
