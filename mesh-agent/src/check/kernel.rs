//! The kernel: version, BTF, build options, bpffs, and whether it takes the programs.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    utsname::uname,
};

use super::Finding;
use crate::kernel::{Loaded, Steering};

/// Oldest kernel that the tests cover; older ones down to [`OLDEST_POSSIBLE`] may work.
const OLDEST_SUPPORTED: (u32, u32) = (6, 1);
/// 5.18 brought `bpf_set_retval`, with which connects are refused.
const OLDEST_POSSIBLE: (u32, u32) = (5, 18);
const BTF: &str = "/sys/kernel/btf/vmlinux";
const BPF_FILESYSTEM: &str = "/sys/fs/bpf";

/// Build options that the programs need, and what each is for.
const BUILD_OPTIONS: &[(&str, &str)] = &[
    ("CONFIG_BPF_SYSCALL", "the bpf system call"),
    ("CONFIG_CGROUP_BPF", "programs on cgroups"),
    (
        "CONFIG_DEBUG_INFO_BTF",
        "type information for maps and programs",
    ),
    ("CONFIG_NET_NS", "network namespaces"),
    ("CONFIG_BPF_JIT", "speed: programs run as machine code"),
];

pub(super) fn version() -> Finding {
    const NAME: &str = "kernel version";
    let release = uname()
        .ok()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST_SUPPORTED;
    if version >= OLDEST_SUPPORTED {
        Finding::ok(NAME, release)
    } else if version >= OLDEST_POSSIBLE {
        Finding::warning(
            NAME,
            format!("{release} is older than {major}.{minor}, the oldest that is tested"),
            "upgrade when you can",
        )
    } else {
        Finding::failed(
            NAME,
            format!(
                "{release} is too old: programs on cgroups cannot refuse a connect before 5.18"
            ),
            format!("run a kernel of {major}.{minor} or later"),
        )
    }
}

pub(super) fn btf() -> Finding {
    const NAME: &str = "kernel BTF";
    if Path::new(BTF).exists() {
        Finding::ok(NAME, BTF)
    } else {
        Finding::failed(
            NAME,
            format!("{BTF} is missing"),
            "run a kernel built with CONFIG_DEBUG_INFO_BTF=y (all current distributions' are)",
        )
    }
}

pub(super) fn build_options() -> Vec<Finding> {
    const NAME: &str = "kernel build options";
    let Some(config) = build_configuration() else {
        return vec![Finding::warning(
            NAME,
            "neither /proc/config.gz nor /boot/config-* can be read",
            "nothing to do if the programs load (below)",
        )];
    };
    let missing: Vec<Finding> = BUILD_OPTIONS
        .iter()
        .filter(|(option, _)| !config.lines().any(|line| line == format!("{option}=y")))
        .map(|(option, purpose)| {
            let found = format!("{option} is not set ({purpose})");
            if *option == "CONFIG_BPF_JIT" {
                Finding::warning(NAME, found, "run a kernel that has it")
            } else {
                Finding::failed(NAME, found, "run a kernel that has it")
            }
        })
        .collect();
    if missing.is_empty() {
        let options: Vec<&str> = BUILD_OPTIONS.iter().map(|(option, _)| *option).collect();
        return vec![Finding::ok(NAME, options.join(" "))];
    }
    missing
}

fn build_configuration() -> Option<String> {
    let mut text = String::new();
    if let Ok(file) = File::open("/proc/config.gz") {
        flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .ok()?;
        return Some(text);
    }
    let release = uname().ok()?.release().to_string_lossy().into_owned();
    fs::read_to_string(format!("/boot/config-{release}")).ok()
}

pub(super) fn bpf_filesystem() -> Finding {
    const NAME: &str = "bpffs";
    if statfs(BPF_FILESYSTEM).is_ok_and(|filesystem| filesystem.filesystem_type() == BPF_FS_MAGIC) {
        Finding::ok(NAME, BPF_FILESYSTEM)
    } else {
        Finding::failed(
            NAME,
            format!("none is mounted at {BPF_FILESYSTEM}"),
            format!("mount -t bpf bpf {BPF_FILESYSTEM}"),
        )
    }
}

pub(super) fn programs_load() -> Finding {
    const NAME: &str = "programs load";
    // No earlier run's pins are there: nothing is taken over, nothing is pinned, nothing attached.
    let loaded =
        Loaded::load(Path::new("/nonexistent"), 1024).and_then(|_loaded| Steering::try_load());
    match loaded {
        Ok(()) => Finding::ok(NAME, "the kernel takes every program"),
        Err(error) => Finding::failed(
            NAME,
            error.to_string(),
            "report this with the output of `uname -a` and `mesh-agent --version`",
        ),
    }
}
