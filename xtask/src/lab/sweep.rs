//! Removes everything that carries a lab's name, whoever made it and in whatever state it is.

use super::ip;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lab's cgroup: directly below the root of the cgroup v2 hierarchy, which hybrid hosts mount
/// elsewhere than others.
pub fn cgroup_path(name: &str) -> Result<PathBuf> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then_some(path)
    });
    let root = root.context("no cgroup v2 hierarchy is mounted; see `mesh-agent check`")?;
    Ok(Path::new(root).join(name))
}

/// The lab's directory for sockets, configuration and files to serve.
pub fn directory(name: &str) -> PathBuf {
    Path::new("/run").join(name)
}

/// The lab's directory of pinned maps.
pub fn pins(name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(name)
}

/// Removes processes, pins, network namespaces, cgroup and files. Nothing there is no error.
pub fn all(name: &str) -> Result<()> {
    let cgroup = cgroup_path(name)?;
    let mut problems = Vec::new();
    let mut attempt = |outcome: Result<()>| {
        if let Err(error) = outcome {
            problems.push(format!("{error:#}"));
        }
    };
    attempt(kill_processes(&cgroup));
    // Unpinning the links is what detaches a killed agent's programs.
    attempt(remove_directory(&pins(name)));
    for namespace in namespaces(name) {
        attempt(ip(&["netns", "delete", &namespace]));
    }
    attempt(remove_cgroup(&cgroup));
    attempt(remove_directory(&directory(name)));
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(())
}

fn kill_processes(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let kill = cgroup.join("cgroup.kill");
    fs::write(&kill, "1").with_context(|| format!("cannot write {}", kill.display()))?;
    let deadline = Instant::now() + PATIENCE;
    let procs = cgroup.join("cgroup.procs");
    while fs::read_to_string(&procs).is_ok_and(|list| !list.trim().is_empty()) {
        if Instant::now() > deadline {
            bail!("processes in {} do not end", cgroup.display());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn remove_cgroup(cgroup: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(cgroup) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // Ended processes stay members until they are waited for.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot remove {}", cgroup.display()));
            }
        }
    }
}

fn namespaces(name: &str) -> Vec<String> {
    let prefix = format!("{name}-");
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|namespace| namespace.starts_with(&prefix))
        .collect()
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
