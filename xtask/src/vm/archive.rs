//! Debian's archive: package lists of other releases than this machine's.

use super::{directory, quiet};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What tells that a package is Debian's own.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Options by which apt reads the lists of another release from this machine's own archive, kept apart
/// from the machine's.
pub fn lists_of(release: &str) -> Result<Vec<String>> {
    let directory = directory()?.join("apt").join(release);
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(directory.join(part)).context("cannot make apt's directories")?;
    }
    let archive = quiet(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let archive = archive
        .lines()
        .find_map(|line| line.strip_prefix("Debian Debian "))
        .context("this machine's package lists are not Debian's")?;
    let sources = directory.join("release.sources");
    fs::write(
        &sources,
        format!(
            "Types: deb\nURIs: {archive}\nSuites: {release}\nComponents: main\nSigned-By: {KEYRING}\n"
        ),
    )
    .context("cannot write apt's sources")?;
    let option = |name: &str, value: &Path| format!("-o{name}={}", value.display());
    let options = vec![
        option("Dir::Etc::sourcelist", &sources),
        "-oDir::Etc::sourceparts=/dev/null".to_owned(),
        option("Dir::State::lists", &directory.join("lists")),
        option("Dir::Cache", &directory.join("cache")),
        "-oAPT::Sandbox::User=root".to_owned(),
    ];
    quiet(Command::new("apt-get").args(&options).arg("update"))?;
    Ok(options)
}
