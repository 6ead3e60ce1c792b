//! The mount table of this process, `/proc/self/mountinfo`.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// How `/proc/self/fdinfo` names it.
    pub id: u64,
    /// What of its filesystem is mounted: `/`, or for a bind mount the directory; for cgroups as
    /// seen from this process's cgroup namespace.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Type of its filesystem, as in `cgroup2`.
    pub kind: String,
}

/// Every mount that this process sees.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `41 31 0:38 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw`; any number of fields
/// stands before the dash.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    Some(Mount {
        id: str::from_utf8(fields.first()?).ok()?.parse().ok()?,
        root: unescape(fields.get(3)?),
        point: unescape(fields.get(4)?),
        kind: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() {
            &after[3..]
        } else {
            after
        };
    }
    OsString::from_vec(path).into()
}

/// How many levels `path` is below `ancestor`; `None` if it is not below it. Both are seen from a
/// cgroup namespace: `/..` is above what the namespace calls the root, once for each `..`.
pub fn levels_below(path: &Path, ancestor: &Path) -> Option<usize> {
    let ups = |path: &Path| {
        path.components()
            .filter(|component| *component == std::path::Component::ParentDir)
            .count()
    };
    let names = |path: &Path| {
        path.components()
            .filter(|component| matches!(component, std::path::Component::Normal(_)))
            .map(|component| component.as_os_str().to_owned())
            .collect::<Vec<_>>()
    };
    let (path_ups, ancestor_ups) = (ups(path), ups(ancestor));
    let (path_names, ancestor_names) = (names(path), names(ancestor));
    if path_ups == ancestor_ups && path_names.starts_with(&ancestor_names) {
        Some(path_names.len() - ancestor_names.len())
    } else if path_ups < ancestor_ups && ancestor_names.is_empty() {
        Some(ancestor_ups - path_ups + path_names.len())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_escapes_and_optional_fields() {
        let mounts = parse(
            b"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
              52 31 0:38 /pods/a /mnt/one\\040two\\134three rw shared:9 master:2 - cgroup2 none rw\n",
        );
        let mount = |id, root: &str, point: &str| Mount {
            id,
            root: root.into(),
            point: point.into(),
            kind: "cgroup2".into(),
        };
        assert_eq!(
            mounts,
            [
                mount(41, "/", "/sys/fs/cgroup/unified"),
                mount(52, "/pods/a", "/mnt/one two\\three"),
            ]
        );
    }

    #[test]
    fn levels_are_counted_also_across_a_namespace_root() {
        for (path, ancestor, levels) in [
            ("/", "/", Some(0)),
            ("/a/b", "/", Some(2)),
            ("/a/b", "/a", Some(1)),
            ("/ab", "/a", None),
            ("/a", "/a/b", None),
            ("/a", "/..", Some(2)),
            ("/", "/../..", Some(2)),
            ("/a", "/../sibling", None),
            ("/../sibling/x", "/../sibling", Some(1)),
            ("/..", "/", None),
        ] {
            assert_eq!(
                levels_below(Path::new(path), Path::new(ancestor)),
                levels,
                "{path} below {ancestor}"
            );
        }
    }
}
