//! Files that cannot be read, or hold no text.

use std::fs;
use std::path::Path;

use super::super::{Config, load};

fn refusal(path: &Path) -> String {
    load(path).unwrap_err().to_string()
}

#[test]
fn a_file_is_read_and_named_in_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.yaml");
    fs::write(&path, "pods: []\n").unwrap();
    assert_eq!(load(&path).unwrap().config, Config::default());
    fs::write(&path, "pods: 1\n").unwrap();
    let expected = format!("{}:1:7: pods: `1` does not fit here", path.display());
    assert!(refusal(&path).starts_with(&expected), "{}", refusal(&path));
}

#[test]
fn what_cannot_be_read_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let shown = directory.path().display();
    assert_eq!(
        refusal(&directory.path().join("none.yaml")),
        format!("{shown}/none.yaml: there is no such file; check the path, or create the file")
    );
    assert_eq!(
        refusal(directory.path()),
        format!("{shown}: is a directory; give the path of the file itself")
    );
    // Endless input ends at the limit.
    assert_eq!(
        refusal(Path::new("/dev/zero")),
        "/dev/zero: is larger than 8 MiB; check that this is the configuration file"
    );
}

#[test]
fn bytes_that_are_no_text_are_pointed_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("latin1.yaml");
    fs::write(&path, b"pods: []\n# caf\xe9\n").unwrap();
    assert_eq!(
        refusal(&path),
        format!(
            "{}:2:6: top level: is not UTF-8 text; save the file as UTF-8",
            path.display()
        )
    );
}
