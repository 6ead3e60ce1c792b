//! Where the programs that play client and server are.

use std::path::{Path, PathBuf};

/// The full path of a script under `tests/programs`.
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(name)
}

/// Debian's Python if it is there: version managers put a slow shell script of the same name first in PATH.
pub fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() {
        "/usr/bin/python3"
    } else {
        "python3"
    }
}
