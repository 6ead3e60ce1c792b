//! What this process may do.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::Finding;

/// Capabilities by number (include/uapi/linux/capability.h), and what each is needed for.
const CAPABILITIES: &[(u32, &str, &str)] = &[
    (12, "CAP_NET_ADMIN", "attaching to cgroups"),
    (13, "CAP_NET_RAW", "sockets inside pods"),
    (21, "CAP_SYS_ADMIN", "entering network namespaces, pinning"),
    (38, "CAP_PERFMON", "loading the programs"),
    (39, "CAP_BPF", "loading the programs"),
];

/// Below this the agent serves fewer than some 30,000 connections.
const COMFORTABLE_OPEN_FILES: u64 = 65_536;

pub(super) fn privileges() -> Finding {
    const NAME: &str = "privileges";
    let effective = effective_capabilities();
    let missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(number, _, _)| effective & (1 << number) == 0)
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    if missing.is_empty() {
        return Finding::ok(NAME, "all capabilities that are needed");
    }
    Finding::failed(
        NAME,
        format!("missing {}", missing.join(", ")),
        "run as root (sudo), in Kubernetes with securityContext.privileged: true",
    )
}

pub(super) fn open_files() -> Finding {
    const NAME: &str = "open-files limit";
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let may_raise = effective_capabilities() & CAP_SYS_RESOURCE != 0;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    if may_raise {
        Finding::ok(NAME, "the agent raises it to the kernel's own (fs.nr_open)")
    } else if limit >= COMFORTABLE_OPEN_FILES {
        Finding::ok(NAME, limit.to_string())
    } else {
        Finding::warning(
            NAME,
            format!("{limit}: room for about {} connections", limit / 2),
            "raise it (LimitNOFILE=, ulimit -Hn) or grant CAP_SYS_RESOURCE",
        )
    }
}

/// The effective set, one bit per capability number; empty if it cannot be read.
fn effective_capabilities() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}
