//! Named network namespaces and the links between them, made with iproute2.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Where iproute2 keeps named namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// A named network namespace, deleted when dropped.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace `name` with `lo` up.
    pub fn create(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let netns = Self {
            name: name.to_owned(),
        };
        netns.batch("link set lo up")?;
        Ok(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Runs iproute2 commands, one a line, inside the namespace.
    pub fn batch(&self, commands: &str) -> Result<()> {
        run_batch(&["-n", &self.name, "-batch", "-"], commands)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A test may have deleted it already.
        if self.path().exists()
            && let Err(error) = delete(&self.name)
        {
            eprintln!("namespace {} was left behind: {error:#}", self.name);
        }
    }
}

/// Deletes the namespace `name`.
pub fn delete(name: &str) -> Result<()> {
    ip(&["netns", "del", name])
}

fn ip(args: &[&str]) -> Result<()> {
    run_batch(args, "")
}

fn run_batch(args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ip`; install iproute2")?;
    child
        .stdin
        .take()
        .context("ip has no stdin")?
        .write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "`ip {}` failed: {}\n{input}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
