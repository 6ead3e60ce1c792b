//! Where things are: the workspace, its target directory, the pinned toolchain, commands on PATH.

use anyhow::{Context, Result};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The workspace's root directory.
pub fn root() -> &'static Path {
    // xtask lives one level below the root, and runs on the machine it was built on.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Cargo's target directory, wherever the user's configuration has put it.
pub fn target_dir() -> Result<&'static Path> {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    if let Some(target) = TARGET.get() {
        return Ok(target);
    }
    // Cargo tells what it runs where its own binary is.
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root())
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .context("cannot start cargo: is rustup's bin directory on PATH?")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "`cargo metadata` failed: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
    let target = metadata["target_directory"]
        .as_str()
        .context("`cargo metadata` names no target directory")?;
    Ok(TARGET.get_or_init(|| PathBuf::from(target)))
}

/// The log file of one named step, in a directory that exists.
pub fn log_file(name: &str) -> Result<PathBuf> {
    let directory = target_dir()?.join("xtask/logs");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory.join(format!("{name}.log")))
}

/// The toolchain that `rust-toolchain.toml` pins, for example `1.95.0`.
pub fn pinned_toolchain() -> Result<&'static str> {
    let file = include_str!("../../rust-toolchain.toml");
    file.lines()
        .filter_map(|line| line.trim().strip_prefix("channel"))
        .find_map(|rest| rest.split('"').nth(1))
        .context("rust-toolchain.toml has no `channel = \"…\"` line")
}

/// A directory of this workspace's own for tools of which the user has another version.
pub fn own_tools() -> Result<PathBuf> {
    Ok(target_dir()?.join("xtask/tools"))
}

/// `$CARGO_HOME`, by default `~/.cargo`.
pub fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(
        || env::home_dir().unwrap_or_default().join(".cargo"),
        PathBuf::from,
    )
}

/// Cargo of the pinned toolchain, run in the workspace's root with [`search_path`] as PATH.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).env("PATH", search_path());
    if let Ok(toolchain) = pinned_toolchain() {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command
}

/// PATH with the places added where cargo and Debian put commands that shells often leave out.
pub fn search_path() -> OsString {
    let mut directories = Vec::new();
    // Own tools are there only when PATH has another version of them, so they come first.
    if let Ok(tools) = own_tools() {
        directories.push(tools.join("bin"));
    }
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    directories.push(cargo_home().join("bin"));
    directories.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    // Only a directory name with a colon could fail here, and PATH cannot hold one.
    env::join_paths(directories).unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
}

/// The full path of a command on [`search_path`].
pub fn find_command(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|directory| directory.join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Whether nobody looks at what we print.
pub fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// Whether we run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The command line with which a user who is not root repeats `verb`.
pub fn as_root(verb: &str) -> String {
    format!("sudo --preserve-env=HOME env \"PATH=$PATH\" cargo xtask {verb}")
}
