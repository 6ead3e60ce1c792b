//! The open-files limit: a forwarded connection takes two descriptors.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as this process may: to the kernel's own with `CAP_SYS_RESOURCE`, to the
/// hard limit without.
pub fn raise_limit() {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let kernel_maximum = fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(hard);
    if setrlimit(Resource::RLIMIT_NOFILE, kernel_maximum, kernel_maximum).is_err()
        && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err()
    {
        tracing::warn!("cannot raise the open-files limit; a forwarded connection takes 2");
    }
}
