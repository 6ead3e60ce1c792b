//! The file system of the machine: programs of this one with their libraries, and the tests.

use super::{directory, quiet};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that the tests use as tools, clients and servers.
const PROGRAMS: [&str; 5] = ["ip", "nsenter", "bpftool", "curl", "python3"];

/// Parts of Python's library that no test needs.
const NOT_OF_PYTHON: [&str; 8] = [
    "test",
    "idlelib",
    "lib2to3",
    "tkinter",
    "ensurepip",
    "distutils",
    "pydoc_data",
    "config-3*",
];

/// Small files that programs expect.
const FILES: [(&str, &str); 6] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/resolv.conf", ""),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
    ("init", INIT),
];

/// The first process: mounts what a node has, runs the tests and says how they ended.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*.ko; do insmod $module; done
ip link set lo up
ulimit -n 1048576
echo "VM: Linux $(uname -r), booted in $(cut -d' ' -f1 /proc/uptime) s"
read filters < /filters
while read -r variable; do export "$variable"; done < /environment
cd /
export MESH_AGENT_BIN=/mesh-agent RUST_BACKTRACE=0
[ -e /card ] && export MESH_TEST_CARDS=eth0,eth1
/e2e --test-threads=2 $filters 2>&1
code=$?
if [ -e /card ]; then /card --test-threads=1 --show-output $filters 2>&1 || code=$?; fi
echo "VM: tests ended with $code after $(cut -d' ' -f1 /proc/uptime) s"
poweroff -f
"#;

/// Builds the archive, and gives its path.
pub fn build(agent: &Path) -> Result<PathBuf> {
    let directory = directory()?;
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).context("cannot remove the earlier root")?;
    }
    let mut root = Root {
        directory: root,
        copied: BTreeSet::new(),
    };
    for empty in [
        "bin", "dev", "proc", "sys", "tmp", "run", "root", "var/tmp", "modules",
    ] {
        root.directory(empty)?;
    }
    root.add(&command("busybox")?, Path::new("/bin/busybox"))?;
    root.add(agent, Path::new("/mesh-agent"))?;
    let stripped = directory.join("e2e");
    strip(&program("mesh-tests", "e2e")?, &stripped)?;
    root.add(&stripped, Path::new("/e2e"))?;
    for program in PROGRAMS {
        let path = command(program)?;
        root.add(&path, &path)?;
    }
    python(&mut root)?;
    let programs = workspace::root().join("tests/programs");
    root.copy_tree(&programs, &[])?;
    for (path, text) in FILES {
        let path = root.directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    quiet(
        Command::new("chmod")
            .arg("755")
            .arg(root.directory.join("init")),
    )?;
    let archive = directory.join("root.cpio");
    pack(&root.directory, &archive)?;
    Ok(archive)
}

/// Packs a directory as the kernel unpacks it into its first file system.
pub fn pack(directory: &Path, archive: &Path) -> Result<()> {
    let script = r#"cd "$0" && find . | busybox cpio --create --format=newc > "$1""#;
    quiet(
        Command::new("sh")
            .args(["-c", script])
            .args([directory, archive]),
    )
    .map(drop)
}

struct Root {
    directory: PathBuf,
    copied: BTreeSet<PathBuf>,
}

impl Root {
    fn directory(&self, path: &str) -> Result<()> {
        let path = self.directory.join(path);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))
    }

    /// Where an absolute path is inside.
    fn inside(&self, path: &Path) -> PathBuf {
        self.directory.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Adds a file and the libraries that it needs.
    fn add(&mut self, file: &Path, at: &Path) -> Result<()> {
        self.copy(file, at)?;
        for library in libraries(file) {
            self.copy(&library, &library)?;
        }
        Ok(())
    }

    fn copy(&mut self, file: &Path, at: &Path) -> Result<()> {
        if !self.copied.insert(at.to_owned()) {
            return Ok(());
        }
        let inside = self.inside(at);
        if let Some(parent) = inside.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(file, &inside)
            .map(drop)
            .with_context(|| format!("cannot copy {}", file.display()))
    }

    /// Adds a directory at its own path, without those parts.
    fn copy_tree(&self, directory: &Path, without: &[&str]) -> Result<()> {
        let inside = self.inside(directory);
        fs::create_dir_all(&inside)?;
        let excludes = without.iter().map(|part| format!("--exclude=./{part}"));
        let excludes: Vec<String> = excludes.collect();
        let script = r#"from=$1; to=$2; shift 2; tar -C "$from" -cf - "$@" . | tar -C "$to" -xf -"#;
        quiet(
            Command::new("sh")
                .args(["-c", script, "copy"])
                .args([directory, &inside])
                .args(excludes),
        )
        .map(drop)
    }
}

/// Python's library, and the libraries of its extensions.
fn python(root: &mut Root) -> Result<()> {
    let script = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let library = quiet(Command::new(command("python3")?).args(["-c", script]))?;
    let library = PathBuf::from(library.trim());
    root.copy_tree(&library, &NOT_OF_PYTHON)?;
    for extension in fs::read_dir(library.join("lib-dynload"))
        .context("Python has no lib-dynload")?
        .flatten()
    {
        for needed in libraries(&extension.path()) {
            root.copy(&needed, &needed)?;
        }
    }
    Ok(())
}

/// The libraries that a program is linked with; none if it is linked with none.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = quiet(Command::new("ldd").arg(program)).unwrap_or_default();
    listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Debian's own, where a version manager has put a script before it.
fn command(name: &str) -> Result<PathBuf> {
    let debian = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists());
    debian
        .or_else(|| workspace::find_command(name))
        .with_context(|| format!("there is no {name}"))
}

/// Copies a program without what debuggers need.
pub fn strip(program: &Path, to: &Path) -> Result<()> {
    quiet(Command::new("strip").arg("-o").args([to, program])).map(drop)
}

/// Builds the tests called `target` of a package, and gives the path of their program.
pub fn program(package: &str, target: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", package, "--test", target]);
    cargo.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let output = quiet(&mut cargo)?;
    for line in output.lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if message["target"]["name"] == target
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo names no program for the tests {target} of {package}")
}
