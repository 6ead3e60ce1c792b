//! What is pinned, and taking it away again.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use super::{KernelError, PROGRAMS, bpf_syscall, load::PINNED_MAPS, programs::Hook};

/// Before the netns cookie in the name of a steering link's pin.
const STEERING: &str = "link_mesh_steer_";

/// Where the link of a hook is pinned.
pub(super) fn link_pin(pin_path: &Path, hook: &Hook) -> PathBuf {
    pin_path.join(format!("link_{}", hook.program))
}

/// Where the link of the steering program in a network namespace is pinned.
pub(super) fn steering_pin(pin_path: &Path, netns_cookie: u64) -> PathBuf {
    pin_path.join(format!("{STEERING}{netns_cookie}"))
}

/// The steering programs that are pinned: netns cookie and pin.
pub(super) fn steering_pins(pin_path: &Path) -> Vec<(u64, PathBuf)> {
    let cookie = |name: &OsStr| name.to_str()?.strip_prefix(STEERING)?.parse().ok();
    fs::read_dir(pin_path)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((cookie(&entry.file_name())?, entry.path())))
        .collect()
}

/// Removes one pin; fine if it is not there.
pub(super) fn remove_pin(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Detaches what is pinned at `path`, at once, and removes the pin.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    // Removing the pin alone detaches too, but in a kernel worker, some time later. A link of an
    // earlier kernel or of a cgroup that is gone has nothing to detach.
    let _pin_goes_anyway =
        bpf_syscall::open_pin(path).and_then(|link| bpf_syscall::detach_link(link.as_fd()));
    remove_pin(path)
}

/// Removes every pin of ours, connect first: no connect is redirected while its helpers go. Goes on
/// past a pin that cannot be removed.
pub(super) fn remove_pins(pin_path: &Path) -> Result<(), KernelError> {
    let steering = steering_pins(pin_path).into_iter().map(|(_, pin)| pin);
    remove(
        detach_links(pin_path)
            .chain(steering.map(detached))
            .chain(maps(pin_path)),
    )
}

/// Removes the pins but those that servers in pods cannot be reached without: the steering programs
/// that were left, and the maps that these use.
pub(super) fn remove_unneeded_pins(pin_path: &Path) -> Result<(), KernelError> {
    if steering_pins(pin_path).is_empty() {
        remove_pins(pin_path)
    } else {
        remove(detach_links(pin_path))
    }
}

type Removed = (PathBuf, io::Result<()>);

fn detached(pin: PathBuf) -> Removed {
    let removed = detach(&pin);
    (pin, removed)
}

fn detach_links(pin_path: &Path) -> impl Iterator<Item = Removed> {
    let links = PROGRAMS.iter().rev().map(|hook| link_pin(pin_path, hook));
    links.map(detached)
}

fn maps(pin_path: &Path) -> impl Iterator<Item = Removed> {
    let maps = PINNED_MAPS.iter().map(|map| pin_path.join(map));
    maps.map(|pin| {
        let removed = remove_pin(&pin);
        (pin, removed)
    })
}

fn remove(pins: impl Iterator<Item = Removed>) -> Result<(), KernelError> {
    let stay: Vec<String> = pins
        .filter_map(|(pin, removed)| Some(format!("{} ({})", pin.display(), removed.err()?)))
        .collect();
    if stay.is_empty() {
        Ok(())
    } else {
        Err(KernelError::PinsStay(stay.join(", ")))
    }
}
